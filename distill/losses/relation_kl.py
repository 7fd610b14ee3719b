"""Relations within the batch: each image gets the same neighbors in student and teacher."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses._precision import (
    check_positive,
    check_rows,
    full_precision,
    partner_weights,
    same_image_or_class,
    unit,
)


@full_precision
def relation_kl(
    student_BD: Tensor, teacher_BE: Tensor, *, tau: float, weights_B: Tensor | None = None
) -> Tensor:
    """KL(softmax_j(cos(k_i, k_j) / tau) || softmax_j(cos(q_i, q_j) / tau)) per anchor i -> [B].

    q are student rows [B, D] and k teacher rows [B, E]. Index j runs over the other images of the
    batch, each with its weight w_j (the softmax is of c_j + log w_j). The loss is zero for an
    anchor whose partners all weigh zero. Rotation and scale of either side have no effect. REC .6.
    Raises LossError for B < 2, unequal B or tau <= 0.

    Example:
        >>> rows_BD = torch.eye(3)
        >>> relation_kl(2 * rows_BD, rows_BD, tau=0.1).tolist()
        [0.0, 0.0, 0.0]
    """
    check_rows(student_BD, teacher_BE, same_width=False, least=2)
    check_positive("tau", tau)
    weights = partner_weights(weights_B, student_BD)
    shut = same_image_or_class(student_BD, None) | (weights == 0)
    shift = weights.clamp_min(torch.finfo(weights.dtype).tiny).log()
    # A finite mask value keeps 0 * (x - y) at zero; with -inf it would be NaN.
    low = torch.finfo(student_BD.dtype).min / 4
    student_log, teacher_log = (
        F.log_softmax((x @ x.T / tau + shift).masked_fill(shut, low), dim=1)
        for x in (unit(student_BD), unit(teacher_BE))
    )
    divergence = teacher_log.exp() * (teacher_log - student_log)
    return divergence.masked_fill(shut, 0.0).sum(1)
