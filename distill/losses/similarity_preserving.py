"""Similarity-preserving distillation: images similar to the teacher are similar to the student."""

from __future__ import annotations

from torch import Tensor

from distill.losses._precision import MIN_NORM, check_rows, full_precision, partner_weights, unit


@full_precision
def similarity_preserving(
    student_BD: Tensor, teacher_BE: Tensor, weights_B: Tensor | None = None
) -> Tensor:
    """Mean over j of (G^T_ij - G^S_ij)^2 per anchor i -> [B].

    G are the Gram matrices x x^T [B, B] of rows x [B, D] and [B, E], with their own rows scaled to
    length 1; j runs over the whole batch, i included. The mean over the batch is
    `(1 / B^2) ||G^T - G^S||_F^2`. SOURCE (Tung & Mori, arXiv 1907.09682).
    The weights are OURS: j has the weight w_j in the length and the sum of a row, and B becomes the
    effective sample size (sum w)^2 / sum w^2. An image of weight zero acts as if it were absent,
    and equal weights of any size have no effect. The loss is zero for an anchor whose partners all
    weigh zero. Rotation and scale of either side have no effect.
    Raises LossError for B < 2 or unequal B.

    Example:
        >>> import torch
        >>> rows_BD = torch.eye(3)
        >>> similarity_preserving(2 * rows_BD, rows_BD).round(decimals=4).tolist()
        [0.0, 0.0, 0.0]
    """
    check_rows(student_BD, teacher_BE, same_width=False, least=2)
    weights = partner_weights(weights_B, student_BD)
    share_B = weights / weights.sum().clamp_min(1e-12)
    # A Gram row scales with the square of a row, so the least length is squared too.
    student, teacher = (
        unit(x @ x.T * share_B.sqrt(), least=MIN_NORM**2) for x in (student_BD, teacher_BE)
    )
    return (student - teacher).square().sum(1) * share_B.square().sum()
