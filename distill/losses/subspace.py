"""The low-noise representation: features compared only where the teacher's classifier looks."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.losses._precision import LossError, check_rows, full_precision, unit


@full_precision
def subspace(student_BD: Tensor, teacher_BD: Tensor, basis_DR: Tensor) -> Tensor:
    """|| n(V^T h_S) - n(V^T h_T) ||^2 -> [B], in [0, 4]. REC .35.

    student_BD: student features already mapped to the teacher's width; teacher_BD: h_T;
    basis_DR: V, orthonormal columns. Raises LossError for unequal widths.
    """
    check_rows(student_BD, teacher_BD, same_width=True)
    if basis_DR.ndim != 2 or len(basis_DR) != teacher_BD.shape[1]:
        raise LossError(
            f"the basis must have {teacher_BD.shape[1]} rows, not shape {list(basis_DR.shape)}"
        )
    gap = unit(student_BD @ basis_DR) - unit(teacher_BD @ basis_DR)
    return gap.square().sum(1)


def classifier_subspace(weight_CD: Tensor, rank: int) -> Tensor:
    """V [D, r], orthonormal: the first r right singular vectors of the row-centered classifier.

    A softmax only sees differences of its rows, and the centered classifier has rank C - 1: with
    r = C - 1 the projection V V^T h leaves softmax(W h + b) unchanged and drops every direction
    of h that no class depends on; with less it also drops the weakest distinctions. OURS.
    Raises LossError unless 1 <= rank <= min(C - 1, D).
    """
    if weight_CD.ndim != 2:
        raise LossError(f"a classifier is [C, D], not {list(weight_CD.shape)}")
    most = min(weight_CD.shape[0] - 1, weight_CD.shape[1])
    if not 1 <= rank <= most:
        raise LossError(f"rank must be in 1..{most} for this classifier, not {rank}")
    # float64 on the CPU: done once, and the same basis wherever the training runs.
    weight = weight_CD.detach().cpu().double()
    _, _, right = torch.linalg.svd(weight - weight.mean(0), full_matrices=False)
    basis_DR: Tensor = right[:rank].T.contiguous()
    return basis_DR.to(weight_CD.device, weight_CD.dtype)
