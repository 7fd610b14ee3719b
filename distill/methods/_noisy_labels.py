"""DFND's term: a learned matrix of the teacher's label errors, with an optimizer of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.losses.transition import noise_matrix, transition

ACCURACY = 0.95  # of a teacher whose accuracy is not recorded. OURS
MOST = 0.999  # of the diagonal of Q. OURS
LR = 1e-3  # of Adam, for the matrix alone. SOURCE (DFND)


class NoisyLabels(nn.Module):
    """NLL(log(softmax(s) Q), y), y = argmax t; `accuracy` in 0-1 is Q's diagonal."""

    def __init__(self, num_classes: int, accuracy: float | None) -> None:
        """`accuracy` is the teacher's in 0-1; None stands for 0.95. OURS.

        The diagonal of Q must lie between 0 and 1, and a small evaluation set may give either.
        """
        super().__init__()
        accuracy = ACCURACY if accuracy is None else accuracy
        self.accuracy = min(max(accuracy, 1 - MOST), MOST)
        self.theta = nn.Parameter(torch.zeros(num_classes, num_classes - 1))

    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer of the matrix."""
        return torch.optim.Adam([self.theta], lr=LR)

    def forward(self, student_BC: Tensor, teacher_BC: Tensor) -> Tensor:
        """Return the loss [B] of student and teacher logits [B, C]. SOURCE (DFND, CVPR 2021)."""
        matrix_CC = noise_matrix(self.theta, self.accuracy)
        return transition(student_BC, teacher_BC.argmax(1), matrix_CC)
