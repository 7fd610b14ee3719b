"""InfoNCE: each anchor finds its own key among the keys of the batch."""

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

    c_ij = cosine(anchor i, key j) / tau; j runs over the other images, which count by their weight
    w_j (all 1 by default) and not at all when they are of the anchor's class (`classes_B`, int):
    with few classes most others are no negatives. Zero for an anchor without negatives.
    Of van den Oord et al. (arXiv 1807.03748); that it is ODSD's relation to the teacher is REC .6,
    weights and masked classes are OURS.
    Raises LossError for B < 2, unequal shapes or tau <= 0.
    """
    check_rows(anchors_BD, keys_BD, same_width=True, least=2)
    check_positive("tau", tau)
    scores = unit(anchors_BD) @ unit(keys_BD).T / tau
    positive = scores.diagonal()
    negatives = (scores + partner_weights(weights_B, anchors_BD).log()).masked_fill(
        same_image_or_class(anchors_BD, classes_B), -torch.inf
    )
    return torch.logsumexp(torch.cat([positive[:, None], negatives], 1), 1) - positive
