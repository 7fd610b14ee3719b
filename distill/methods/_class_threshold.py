"""Which images of a stream pass: a threshold for each class, lower where a class is rare.

The release of KD3 (arXiv 2307.11469: SOURCE) counts classes over its whole pool in each epoch; on
a stream the counts are running means over the last steps (OURS). B rows of a step, C classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from distill.method import MethodError

MOST_LOGGED = 100  # classes, of which each line of the log says the share
EPOCHS = 240  # of KD3's training, which its schedule of alpha counts in. SOURCE


def teacher_share(progress: float, schedule: str, teacher_frac: float) -> float:
    """alpha, the teacher's share in what decides, in 0-1 at `progress` in 0-1 of the training.

    faithful: by epochs of 240, cut to 0 at half. SOURCE. smooth: to 0 at `teacher_frac`. OURS.
    """
    if schedule == "faithful":
        epoch = math.floor(progress * EPOCHS)
        return 1 - math.exp(-5 * ((epoch + 1) / 160 - 1) ** 2) if epoch < 120 else 0.0
    if progress >= teacher_frac:
        return 0.0
    return 1 - math.exp(-5 * (progress / teacher_frac - 1) ** 2)


def thresholds(counts_C: Tensor, tau: float, floor: float) -> Tensor:
    """tau b / (2 - b) with b = counts / max counts, at least `floor`: [C] in 0-1. SOURCE."""
    share = counts_C / counts_C.max().clamp_min(1e-12)
    return (tau * share / (2 - share)).clamp_min(floor)


class ClassThreshold(nn.Module):
    """Counts the classes that it sees, and how much passes; both are part of a checkpoint."""

    def __init__(self, num_classes: int, *, tau: float, floor: float, memory: int) -> None:
        """`floor` times 1 / C is the least threshold; `memory` steps are remembered."""
        super().__init__()
        self.tau, self.floor, self.memory = tau, floor / num_classes, memory
        self.counts_C: Tensor
        self.register_buffer("counts_C", torch.zeros(num_classes))
        self.kept_frac: Tensor
        # Begins at 1: while the student knows nothing yet, little may pass.
        self.register_buffer("kept_frac", torch.ones(()))

    def forward(self, logits_BC: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Whether max softmax exceeds its class's threshold, [B] of 0 and 1; and values to log.

        Everything passes at tau = 0.
        """
        confidence, classes = logits_BC.float().softmax(1).max(1)
        counted_C = torch.zeros_like(self.counts_C)
        counted_C.index_add_(0, classes, torch.ones_like(confidence))
        self.counts_C.mul_(1 - 1 / self.memory).add_(counted_C)
        least_C = thresholds(self.counts_C, self.tau, self.floor)
        passes = torch.ones_like(confidence)
        if self.tau > 0:
            passes = (confidence > least_C[classes]).float()
        self.kept_frac.lerp_(passes.mean(), 1 / self.memory)
        observed = {"kept_frac": passes.mean(), "largest_class": counted_C.max() / len(classes)}
        if len(counted_C) <= MOST_LOGGED:
            observed["classes"] = counted_C / len(classes)
        return passes, observed

    def check(self, least: float) -> None:
        """MethodError where over the steps remembered a smaller share than `least` passed."""
        kept_frac = self.kept_frac.item()
        if kept_frac < least:
            raise MethodError(
                f"only {100 * kept_frac:.1f} % of the images pass its threshold: lower it with "
                f"--set tau={self.tau / 2:g}"
            )


def first_passing(passes_B: Tensor, num: int) -> Tensor:
    """The rows of `num` images: those that pass come first, in the random order of the batch."""
    position = torch.arange(len(passes_B), device=passes_B.device) / len(passes_B)
    return (passes_B - position).topk(num).indices


def largest(values_B: Tensor, weights_B: Tensor, num: int) -> Tensor:
    """The rows of the `num` largest values; images that weigh nothing come last."""
    return values_B.masked_fill(weights_B == 0, -torch.inf).topk(num).indices
