"""InfoNCE: each anchor is to find its own key among the keys of the batch."""

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
def infonce(
    anchors_BD: Tensor,
    keys_BD: Tensor,
    *,
    tau: float,
    weights_B: Tensor | None = None,
    classes_B: Tensor | None = None,
) -> Tensor:
    """-log(e^{c_ii} / (e^{c_ii} + sum_j w_j e^{c_ij})) per anchor i -> [B], in nats.

    Anchors and keys are [B, D]; c_ij = cosine(anchor i, key j) / tau. Index j runs over the other
    images, each with its weight w_j (1 by default). An image of the anchor's class (`classes_B`
    [B], int) does not count: with few classes, most other images are not true negatives. The loss
    is zero for an anchor without negatives.
    SOURCE for the loss (van den Oord et al., arXiv 1807.03748). That ODSD relates student and
    teacher by it is REC .6; the weights and the masked classes are OURS.
    Raises LossError for B < 2, unequal shapes or tau <= 0.

    Example:
        >>> rows_BD = torch.eye(3)
        >>> infonce(rows_BD, rows_BD, tau=0.1).round(decimals=3).tolist()
        [0.0, 0.0, 0.0]
    """
    check_rows(anchors_BD, keys_BD, same_width=True, least=2)
    check_positive("tau", tau)
    scores = unit(anchors_BD) @ unit(keys_BD).T / tau
    positive = scores.diagonal()
    negatives = (scores + partner_weights(weights_B, anchors_BD).log()).masked_fill(
        same_image_or_class(anchors_BD, classes_B), -torch.inf
    )
    return torch.logsumexp(torch.cat([positive[:, None], negatives], 1), 1) - positive
