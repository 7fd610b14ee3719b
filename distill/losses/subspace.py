"""The low-noise representation: compare features only in a subspace, as of the classifier."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.losses._precision import LossError, check_rows, full_precision, unit


@full_precision
def subspace(student_BD: Tensor, teacher_BD: Tensor, basis_DR: Tensor) -> Tensor:
    """Squared distance of unit features in a subspace, `||n(V^T h_S) - n(V^T h_T)||^2` -> [B].

    The value is in [0, 4]. `student_BD` [B, D] are student features, mapped to the teacher's width;
    `teacher_BD` [B, D] is h_T; `basis_DR` [D, R] is V with orthonormal columns. REC .35 (ODSD).
    Raises LossError for unequal widths.

    Example:
        >>> features_BD = torch.tensor([[1.0, 5.0]])
        >>> basis_DR = torch.tensor([[1.0], [0.0]])
        >>> subspace(features_BD, torch.tensor([[2.0, -3.0]]), basis_DR).tolist()
        [0.0]
    """
    check_rows(student_BD, teacher_BD, same_width=True)
    if basis_DR.ndim != 2 or len(basis_DR) != teacher_BD.shape[1]:
        raise LossError(
            f"the basis must have {teacher_BD.shape[1]} rows, not shape {list(basis_DR.shape)}"
        )
    gap = unit(student_BD @ basis_DR) - unit(teacher_BD @ basis_DR)
    return gap.square().sum(1)


def classifier_subspace(weight_CD: Tensor, rank: int) -> Tensor:
    """Return V [D, r]: the first r right singular vectors of the centered classifier [C, D].

    The rows are centered because a softmax depends only on differences between logits; the centered
    classifier has rank C - 1. With r = C - 1 the projection V V^T h leaves softmax(W h + b)
    unchanged and drops every direction of h on which no class depends. A smaller r also drops the
    weakest distinctions. OURS.
    Raises LossError unless 1 <= rank <= min(C - 1, D), or if the classifier is not a matrix.

    Example:
        >>> classifier_subspace(torch.eye(3), 2).shape
        torch.Size([3, 2])
    """
    if weight_CD.ndim != 2:
        raise LossError(f"a classifier must be [C, D], not {list(weight_CD.shape)}")
    most = min(weight_CD.shape[0] - 1, weight_CD.shape[1])
    if not 1 <= rank <= most:
        raise LossError(f"rank must be in 1..{most} for this classifier, not {rank}")
    # float64 on the CPU gives the same basis on every training device; it runs once.
    weight = weight_CD.detach().cpu().double()
    _, _, right = torch.linalg.svd(weight - weight.mean(0), full_matrices=False)
    basis_DR: Tensor = right[:rank].T.contiguous()
    return basis_DR.to(weight_CD.device, weight_CD.dtype)
