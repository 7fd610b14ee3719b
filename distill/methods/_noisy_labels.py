"""A learned matrix of how the teacher's labels are wrong: DFND's term, with its own optimizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.losses.transition import noise_matrix, transition

ACCURACY = 0.95  # of a teacher of whom nothing is said. OURS
LR = 1e-3  # of Adam, for the matrix alone. SOURCE (DFND)


class NoisyLabels(nn.Module):
    """NLL(log(softmax(s) Q), y), y = argmax t; `accuracy` in 0-1 is Q's diagonal."""

    def __init__(self, num_classes: int, accuracy: float = ACCURACY) -> None:
        super().__init__()
        self.accuracy = accuracy
        self.theta = nn.Parameter(torch.zeros(num_classes, num_classes - 1))

    def optimizer(self) -> torch.optim.Optimizer:
        """What trains the matrix."""
        return torch.optim.Adam([self.theta], lr=LR)

    def forward(self, student_BC: Tensor, teacher_BC: Tensor) -> Tensor:
        """Values [B] of logits [B, C]."""
        matrix_CC = noise_matrix(self.theta, self.accuracy)
        return transition(student_BC, teacher_BC.argmax(1), matrix_CC)
