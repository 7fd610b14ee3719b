"""Maps of two nets brought to one size."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from distill.losses._precision import check_maps


def same_side(first_BDHW: Tensor, second_BEHW: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps with the smaller H and the smaller W of the two, average-pooled where larger.

    Each axis on its own, so that both may be pooled; widths D and E are free. Maps of one size are
    returned as they are. Raises LossError unless both are maps of equal B.
    """
    check_maps(first_BDHW, second_BEHW)
    (first_H, first_W), (second_H, second_W) = first_BDHW.shape[2:], second_BEHW.shape[2:]
    size = (min(first_H, second_H), min(first_W, second_W))
    first, second = (
        x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size)
        for x in (first_BDHW, second_BEHW)
    )
    return first, second
