"""DFND's noisy-label loss: the student's softmax times a learned matrix predicts the label."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses._precision import LossError, check_classes, full_precision


@full_precision
def noise_matrix(theta_CK: Tensor, accuracy: float) -> Tensor:
    """Return Q [C, C]: the probability that the teacher calls class k (row) class y (column).

    Rows sum to 1. The diagonal is the teacher's accuracy a in 0-1; the other C - 1 entries of row
    k, in order, are (1 - a) softmax(theta_k). `theta_CK` [C, C - 1] is learned and starts at zero.
    SOURCE (DFND, Chen et al., CVPR 2021).
    Raises LossError if theta has another shape, or unless 0 < a < 1.

    Example:
        >>> noise_matrix(torch.zeros(3, 2), 0.5).tolist()
        [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]
    """
    if theta_CK.ndim != 2 or len(theta_CK) < 2 or theta_CK.shape[1] != len(theta_CK) - 1:
        raise LossError(f"theta must be [C, C - 1] with C >= 2, not {list(theta_CK.shape)}")
    if not 0 < accuracy < 1:
        raise LossError(f"accuracy must be between 0 and 1, not {accuracy}")
    num = len(theta_CK)
    others = (1 - accuracy) * theta_CK.softmax(1)
    # A square matrix, read row by row, is its first diagonal entry followed C - 1 times by C
    # entries off the diagonal and one on it.
    after_first = F.pad(others.reshape(num - 1, num), (0, 1), value=accuracy)
    return F.pad(after_first.flatten(), (1, 0), value=accuracy).view(num, num)


@full_precision
def transition(student_BC: Tensor, classes_B: Tensor, noise_CC: Tensor) -> Tensor:
    """-log (softmax(s) Q)_y -> [B], in nats. SOURCE (DFND, Chen et al., CVPR 2021).

    `student_BC` [B, C] are the logits s, `classes_B` [B] the teacher's class y of each sample (int
    in 0..C-1), `noise_CC` [C, C] is Q with rows that sum to 1. The value is finite for finite
    logits if column y of Q has a positive entry.
    Raises LossError for shapes that do not fit, or classes that are not integers.

    Example:
        >>> noise_CC = torch.full((2, 2), 0.5)
        >>> transition(torch.zeros(1, 2), torch.tensor([0]), noise_CC).round(decimals=4).tolist()
        [0.6930999755859375]
    """
    if student_BC.ndim != 2:
        raise LossError(f"logits must be [B, C], not {list(student_BC.shape)}")
    num, num_classes = student_BC.shape
    check_classes(classes_B, num)
    if noise_CC.shape != (num_classes, num_classes):
        raise LossError(
            f"the noise must be [{num_classes}, {num_classes}], not {list(noise_CC.shape)}"
        )
    column_BC = noise_CC[:, classes_B].T
    numbers = torch.finfo(column_BC.dtype)
    # An entry that underflowed is masked with a zero gradient; log 0 would make it NaN.
    log_column_BC = column_BC.clamp_min(numbers.tiny).log()
    log_column_BC = log_column_BC.masked_fill(column_BC < numbers.tiny, numbers.min / 4)
    return -torch.logsumexp(F.log_softmax(student_BC, dim=1) + log_column_BC, dim=1)
