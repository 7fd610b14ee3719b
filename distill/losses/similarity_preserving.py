"""Similarity-preserving distillation: what is alike to the teacher is alike to the student."""

from __future__ import annotations

from torch import Tensor

from distill.losses._precision import MIN_NORM, check_rows, full_precision, partner_weights, unit


@full_precision
def similarity_preserving(
    student_BD: Tensor, teacher_BE: Tensor, weights_B: Tensor | None = None
) -> Tensor:
    """Mean over j of (G^T_ij - G^S_ij)^2 per anchor i -> [B].

    G: Gram matrices x x^T [B, B] with rows of unit length; j runs over the whole batch, i included.
    The mean over the batch is (1 / B^2) ||G^T - G^S||_F^2. SOURCE (Tung & Mori, arXiv 1907.09682).
    Weights are OURS: j counts by w_j in a row's length and in its sum, and B is the number of
    images that the weights amount to, (sum w)^2 / sum w^2; an image of weight zero is as good as
    absent, equal weights of any size change nothing. Zero for an anchor whose partners all weigh
    zero. Any two widths; free of rotation and scale on both sides.
    Raises LossError for B < 2 or unequal B.
    """
    check_rows(student_BD, teacher_BE, same_width=False, least=2)
    weights = partner_weights(weights_B, student_BD)
    share_B = weights / weights.sum().clamp_min(1e-12)
    # A Gram row is as long as a row squared, and so is the least that it is divided by.
    student, teacher = (
        unit(x @ x.T * share_B.sqrt(), least=MIN_NORM**2) for x in (student_BD, teacher_BE)
    )
    return (student - teacher).square().sum(1) * share_B.square().sum()
