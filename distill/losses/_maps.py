"""Bring the feature maps of two nets to one size."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from distill.losses._precision import check_maps


def same_side(first_BDHW: Tensor, second_BEHW: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool maps [B, D, H, W] and [B, E, H', W'] to the smaller H and the smaller W. OURS.

    Each axis is treated by itself, so both maps may be pooled. D and E may differ. Maps of equal
    size are returned unchanged. Raises LossError unless both are maps of equal B.
    """
    check_maps(first_BDHW, second_BEHW)
    (first_H, first_W), (second_H, second_W) = first_BDHW.shape[2:], second_BEHW.shape[2:]
    size = (min(first_H, second_H), min(first_W, second_W))
    first, second = (
        x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size)
        for x in (first_BDHW, second_BEHW)
    )
    return first, second
