"""NT-Xent: the two views of an image are to find each other among all views of the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.losses._precision import (
    check_positive,
    check_rows,
    full_precision,
    partner_weights,
    same_image_or_class,
    unit,
)


@full_precision
def ntxent(
    first_BD: Tensor,
    second_BD: Tensor,
    *,
    tau: float,
    weights_B: Tensor | None = None,
    classes_B: Tensor | None = None,
) -> Tensor:
    """Mean over an image's two views of -log(e^{c+} / (e^{c+} + sum_j w_j e^{c_j})) -> [B].

    Both views are [B, D]; c = cosine / tau. c+ belongs to the image's other view, and c_j to both
    views of every other image j, each with its weight w_j (1 by default). An image of the anchor's
    class (`classes_B` [B], int) does not count: with few classes, most other images are not true
    negatives. REC .6 (that ODSD relates views by it).
    Raises LossError for B < 2, unequal shapes or tau <= 0.

    Example:
        >>> rows_BD = torch.eye(3)
        >>> ntxent(rows_BD, rows_BD, tau=0.1).round(decimals=3).tolist()
        [0.0, 0.0, 0.0]
    """
    check_rows(first_BD, second_BD, same_width=True, least=2)
    check_positive("tau", tau)
    num = len(first_BD)
    views = unit(torch.cat([first_BD, second_BD]))
    scores = views @ views.T / tau + partner_weights(weights_B, first_BD).log().repeat(2)
    same = same_image_or_class(first_BD, classes_B)
    negatives = scores.masked_fill(same.repeat(2, 2), -torch.inf)
    positive = (views[:num] * views[num:]).sum(1).repeat(2) / tau
    loss = torch.logsumexp(torch.cat([positive[:, None], negatives], 1), 1) - positive
    return loss.view(2, num).mean(0)
