"""A contrast of classes: images of one class are to be nearer to each other than to others."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.losses._precision import (
    check_classes,
    check_positive,
    check_rows,
    full_precision,
    partner_weights,
    same_image_or_class,
    unit,
)


@full_precision
def supervised_contrastive(
    rows_BD: Tensor, classes_B: Tensor, *, tau: float, weights_B: Tensor | None = None
) -> Tensor:
    """Mean over positives p of -log(e^{c_ip} / sum_j w_j e^{c_ij}) per anchor i -> [B], in nats.

    Rows are [B, D], classes [B] int; c = cosine / tau. Index j runs over the other images of the
    batch, p over those of the anchor's class; both count with their weights (1 by default), so the
    mean over p is a weighted one. An anchor without a positive has no loss. SOURCE for even weights
    (Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, arXiv 2004.11362, equation 2).
    The weights are OURS.
    Raises LossError for B < 2, classes that are not [B] integers, or tau <= 0.

    Example:
        >>> rows_BD, classes_B = torch.eye(4)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1])
        >>> supervised_contrastive(rows_BD, classes_B, tau=0.1).round(decimals=3).tolist()
        [0.0, 0.0, 0.0, 0.0]
    """
    check_rows(rows_BD, rows_BD, same_width=True, least=2)
    check_classes(classes_B, len(rows_BD))
    check_positive("tau", tau)
    weights = partner_weights(weights_B, rows_BD)
    rows = unit(rows_BD)
    scores = rows @ rows.T / tau
    shut = same_image_or_class(rows, None) | (weights == 0)
    low = torch.finfo(scores.dtype).min / 4
    shift = weights.clamp_min(torch.finfo(weights.dtype).tiny).log()
    spread = (scores + shift).masked_fill(shut, low).logsumexp(1, keepdim=True)
    share = weights * ((classes_B[:, None] == classes_B[None]) & ~shut)
    share = share / share.sum(1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    return (share * (spread - scores).masked_fill(shut, 0.0)).sum(1)
