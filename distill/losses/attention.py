"""Attention transfer: the student's map becomes strong where the teacher's map is strong."""

from __future__ import annotations

from torch import Tensor

from distill.losses._maps import same_side
from distill.losses._precision import MIN_NORM, full_precision, unit


@full_precision
def attention(student_BDHW: Tensor, teacher_BEHW: Tensor) -> Tensor:
    """Squared distance of unit attention maps, `||n(a_S) - n(a_T)||^2`, -> [B] in [0, 2].

    The attention a [H W] of a map f is the mean of f^2 over its channels, and n scales it to length
    1. The maps [B, D, H, W] and [B, E, H', W'] may have different widths; the larger is
    average-pooled to the smaller first (`same_side`). The scale of either map has no effect.
    SOURCE (Zagoruyko & Komodakis, arXiv 1612.03928). Their release takes the mean over positions;
    here it is the sum, which does not depend on the size of the map.
    Raises LossError unless both are maps of equal B.

    Example:
        >>> import torch
        >>> teacher_BEHW = torch.rand(2, 3, 4, 4)
        >>> attention(2 * teacher_BEHW, teacher_BEHW).round(decimals=4).tolist()
        [0.0, 0.0]
    """
    # Attention is a square, so the least length that divides it is squared too.
    student, teacher = (
        unit(x.square().mean(1).flatten(1), least=MIN_NORM**2)
        for x in same_side(student_BDHW, teacher_BEHW)
    )
    return (student - teacher).square().sum(1)
