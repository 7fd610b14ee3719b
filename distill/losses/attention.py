"""Attention transfer: the student's map is strong where the teacher's is."""

from __future__ import annotations

from torch import Tensor

from distill.losses._maps import same_side
from distill.losses._precision import MIN_NORM, full_precision, unit


@full_precision
def attention(student_BDHW: Tensor, teacher_BEHW: Tensor) -> Tensor:
    """|| n(a_S) - n(a_T) ||^2 -> [B], in [0, 2], a = mean over channels of f^2, over H W.

    Maps of any two widths; the larger is average-pooled to the smaller first (`same_side`). SOURCE
    (Zagoruyko & Komodakis, arXiv 1612.03928); their release takes the mean over positions, here it
    is the sum, which does not depend on the map's size. Free of scale on both sides.
    Raises LossError unless both are maps of equal B.
    """
    # Attention is a square, and so is the least length that it is divided by.
    student, teacher = (
        unit(x.square().mean(1).flatten(1), least=MIN_NORM**2)
        for x in same_side(student_BDHW, teacher_BEHW)
    )
    return (student - teacher).square().sum(1)
