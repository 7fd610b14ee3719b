"""DFND's term: a learned matrix of the teacher's label errors, with an optimizer of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.losses.transition import noise_matrix, transition
from indexes.models.card import Card

ACCURACY = 0.95  # of a teacher whose accuracy is not recorded. OURS
MOST = 0.999  # that a card is believed, since a small evaluation set may show no error. OURS
LR = 1e-3  # of Adam, for the matrix alone. SOURCE (DFND)


def recorded_accuracy(card: Card) -> float:
    """Return the accuracy on the teacher's card, between 0 and 1; 0.95 if there is none. OURS."""
    return ACCURACY if card.accuracy is None else min(max(card.accuracy, 1 - MOST), MOST)


class NoisyLabels(nn.Module):
    """NLL(log(softmax(s) Q), y), y = argmax t; `accuracy` between 0 and 1 is Q's diagonal."""

    def __init__(self, num_classes: int, accuracy: float) -> None:
        super().__init__()
        self.accuracy = accuracy
        self.theta = nn.Parameter(torch.zeros(num_classes, num_classes - 1))

    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer of the matrix."""
        return torch.optim.Adam([self.theta], lr=LR)

    def forward(self, student_BC: Tensor, teacher_BC: Tensor) -> Tensor:
        """Return the loss [B] of student and teacher logits [B, C]. SOURCE (DFND, CVPR 2021)."""
        matrix_CC = noise_matrix(self.theta, self.accuracy)
        return transition(student_BC, teacher_BC.argmax(1), matrix_CC)
