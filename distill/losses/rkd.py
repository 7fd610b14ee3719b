"""Relational distillation: the student's distances and angles within a batch are the teacher's."""

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

    d = Euclidean distance / mean of the batch's positive ones; Huber's delta is 1. Partner j counts
    by w_j, a pair by w_i w_j in the mean distance; zero for an anchor whose partners all weigh
    zero. Any two widths; free of rotation, shift and scale on both sides. SOURCE (Park et al.,
    arXiv 1904.05068); the release's mean over a batch also counts the B zeros d_ii, the weights
    are OURS. Costs O(B^2 D) time, O(B^2) memory.
    Raises LossError for B < 2 or unequal B.
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

    The angle at i between the directions to j and to k, all three different; Huber's delta is 1. A
    pair (j, k) counts by w_j w_k; zero for an anchor without a pair of positive weight. Any two
    widths; free of rotation, shift and scale on both sides. SOURCE (Park et al., arXiv 1904.05068);
    the release's mean over a batch also counts the zeros of coinciding i, j, k, the weights are
    OURS. Costs O(B^3 D) time; anchors are taken in blocks that are computed again for the gradient,
    so that memory stays O(B (B + D)).
    Raises LossError for B < 3 or unequal B.
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
    """[B, B]: what j counts as a partner of i; a row is none of its own."""
    num = len(rows_BD)
    return partner_weights(weights_B, rows_BD).repeat(num, 1).fill_diagonal_(0.0)


def _relative_distances(x_BD: Tensor, pairs_BB: Tensor) -> Tensor:
    """Distances [B, B] by their weighted mean over the pairs that differ; all zero without one."""
    # By differences, not by products: exact where rows are equal, and with a finite gradient.
    distances = torch.cdist(x_BD, x_BD, compute_mode="donot_use_mm_for_euclid_dist")
    differing = pairs_BB * (distances > 0)
    mean = _ratio((differing * distances).sum(), differing.sum())
    return distances * (mean > 0) / mean.clamp_min(MIN_NORM)


def _angle_gaps(
    student_BD: Tensor, teacher_BE: Tensor, partners_BB: Tensor, anchors: slice
) -> Tensor:
    """Sums over pairs (j, k) of w_j w_k times the Huber loss of the cosines at i -> [A anchors]."""
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
    """sums / weights, zero where the weights are."""
    return sums / weights.clamp_min(torch.finfo(weights.dtype).tiny)
