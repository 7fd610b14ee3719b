"""Relational distillation: match the teacher's distances and angles within a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from distill.losses._precision import MIN_NORM, check_rows, full_precision, partner_weights, unit

# Numbers in the largest tensor of a block of anchors: 16 MB of float32.
BLOCK = 2**22


@full_precision
def rkd_distance(student_BD: Tensor, teacher_BE: Tensor, weights_B: Tensor | None = None) -> Tensor:
    """Mean over j != i of Huber(d_ij(student) - d_ij(teacher)) per anchor i -> [B].

    Rows are [B, D] and [B, E]. d is the Euclidean distance divided by the mean of the batch's
    positive distances; Huber's delta is 1. Partner j has the weight w_j, and a pair the weight
    w_i w_j in the mean distance. The loss is zero for an anchor whose partners all weigh zero.
    Rotation, shift and scale of either side have no effect. SOURCE (Park et al., arXiv
    1904.05068). The release's mean over a batch also counts the B zeros d_ii; the weights are
    OURS. Costs O(B^2 D) time and O(B^2) memory.
    Raises LossError for B < 2 or unequal B.

    Example:
        >>> rows_BD = torch.eye(4)
        >>> rkd_distance(2 * rows_BD + 1, rows_BD).round(decimals=4).tolist()
        [0.0, 0.0, 0.0, 0.0]
    """
    check_rows(student_BD, teacher_BE, same_width=False, least=2)
    partners_BB = _partners(weights_B, student_BD)
    weights = partner_weights(weights_B, student_BD)
    student, teacher = (
        _relative_distances(x, partners_BB * weights[:, None]) for x in (student_BD, teacher_BE)
    )
    gap = F.huber_loss(student, teacher, reduction="none")
    return _ratio((gap * partners_BB).sum(1), partners_BB.sum(1))


@full_precision
def rkd_angle(student_BD: Tensor, teacher_BE: Tensor, weights_B: Tensor | None = None) -> Tensor:
    """Mean over j != k of Huber(cos(j i k)(student) - cos(j i k)(teacher)) per anchor i -> [B].

    Rows are [B, D] and [B, E]. The angle lies at i between the directions to j and to k, all three
    different; Huber's delta is 1. A pair (j, k) has the weight w_j w_k; the loss is zero for an
    anchor without a pair of positive weight. Rotation, shift and scale of either side have no
    effect. SOURCE (Park et al., arXiv 1904.05068). The release's mean over a batch also counts the
    zeros of coinciding i, j, k; the weights are OURS. Costs O(B^3 D) time. Blocks of anchors are
    computed again for the gradient, so memory stays O(B (B + D)).
    Raises LossError for B < 3 or unequal B.

    Example:
        >>> rows_BD = torch.eye(4)
        >>> rkd_angle(2 * rows_BD + 1, rows_BD).round(decimals=4).tolist()
        [0.0, 0.0, 0.0, 0.0]
    """
    check_rows(student_BD, teacher_BE, same_width=False, least=3)
    num, width = len(student_BD), max(student_BD.shape[1], teacher_BE.shape[1])
    partners_BB = _partners(weights_B, student_BD)
    apart_BB = 1 - torch.eye(num, dtype=student_BD.dtype, device=student_BD.device)
    total = (partners_BB @ apart_BB * partners_BB).sum(1)
    size = max(1, BLOCK // (num * max(num, width)))
    gaps = [
        checkpoint(
            _angle_gaps,
            student_BD,
            teacher_BE,
            partners_BB,
            slice(start, start + size),
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for start in range(0, num, size)
    ]
    return _ratio(torch.cat(gaps), total)


def _partners(weights_B: Tensor | None, rows_BD: Tensor) -> Tensor:
    """[B, B]: the weight of j as a partner of i; a row is not its own partner."""
    num = len(rows_BD)
    return partner_weights(weights_B, rows_BD).repeat(num, 1).fill_diagonal_(0.0)


def _relative_distances(x_BD: Tensor, pairs_BB: Tensor) -> Tensor:
    """Distances [B, B] divided by the weighted mean of the positive ones; all zero without any."""
    # Differences, not products: exact for equal rows, and with a finite gradient.
    distances = torch.cdist(x_BD, x_BD, compute_mode="donot_use_mm_for_euclid_dist")
    differing = pairs_BB * (distances > 0)
    mean = _ratio((differing * distances).sum(), differing.sum())
    return distances * (mean > 0) / mean.clamp_min(MIN_NORM)


def _angle_gaps(
    student_BD: Tensor, teacher_BE: Tensor, partners_BB: Tensor, anchors: slice
) -> Tensor:
    """Sum over pairs (j, k) of w_j w_k times the Huber loss of the cosines at i -> [A anchors]."""
    student, teacher = (_cosines(x, anchors) for x in (student_BD, teacher_BE))
    gaps = F.huber_loss(student, teacher, reduction="none")
    same = torch.eye(len(student_BD), dtype=torch.bool, device=gaps.device)
    partners = partners_BB[anchors]
    sums: Tensor = torch.einsum("ajk,aj,ak->a", gaps.masked_fill(same, 0.0), partners, partners)
    return sums


def _cosines(x_BD: Tensor, anchors: slice) -> Tensor:
    """[A, B, B]: cosines of the angle at i between the directions to j and to k."""
    edges = unit(x_BD - x_BD[anchors, None])
    return edges @ edges.mT


def _ratio(sums: Tensor, weights: Tensor) -> Tensor:
    """sums / weights, and zero where the weights are zero."""
    return sums / weights.clamp_min(torch.finfo(weights.dtype).tiny)
