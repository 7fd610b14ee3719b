"""A confidence threshold for each class of a stream of images, lower for a rare class.

The release of KD3 (arXiv 2307.11469: SOURCE) counts classes over its whole pool in each epoch; on
a stream the counts are running means over the last steps (OURS). B rows of a step, C classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from distill.method import MethodError
from indexes import devices

MOST_LOGGED = 100  # classes, of which each line of the log says the share
EPOCHS = 240  # of KD3's training, which its schedule of alpha counts in. SOURCE


def teacher_share(progress: float, schedule: str, teacher_frac: float) -> float:
    """Return alpha, the teacher's share in the selection, in 0-1; `progress` is in 0-1.

    `faithful` counts 240 epochs from 1, and is 0 from epoch 120 on. SOURCE (the release of KD3,
    arXiv 2307.11469). `smooth` falls to 0 at `teacher_frac`. OURS.

    Example:
        >>> round(teacher_share(0.0, "faithful", 0.5), 4), teacher_share(119 / 240, "faithful", 0.5)
        (0.9924, 0.0)
    """
    if schedule == "faithful":
        epoch = 1 + math.floor(progress * EPOCHS)
        return 1 - math.exp(-5 * ((epoch + 1) / 160 - 1) ** 2) if epoch < 120 else 0.0
    if progress >= teacher_frac:
        return 0.0
    return 1 - math.exp(-5 * (progress / teacher_frac - 1) ** 2)


def thresholds(counts_C: Tensor, tau: float, floor: float) -> Tensor:
    """Return tau b / (2 - b) with b = counts / max counts, at least `floor`: [C] in 0-1. SOURCE.

    Example:
        >>> thresholds(torch.tensor([4.0, 2.0]), tau=0.75, floor=0.1).tolist()
        [0.75, 0.25]
    """
    share = counts_C / counts_C.max().clamp_min(1e-12)
    return (tau * share / (2 - share)).clamp_min(floor)


class ClassThreshold(nn.Module):
    """Counts the classes that it sees, and how much passes; both are part of a checkpoint."""

    def __init__(self, num_classes: int, *, tau: float, floor: float, memory: int) -> None:
        """`floor` / C is the lowest threshold; counts are averaged over `memory` steps."""
        super().__init__()
        self.tau, self.floor, self.memory = tau, floor / num_classes, memory
        self.counts_C: Tensor
        self.register_buffer("counts_C", torch.zeros(num_classes))
        self.kept_frac: Tensor
        # Starts at 1, because few images pass before the student has learned anything.
        self.register_buffer("kept_frac", torch.ones(()))

    def forward(self, logits_BC: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return which images pass, [B] of 0 and 1, and values to log, for logits [B, C]. SOURCE.

        An image passes if its largest softmax value exceeds the threshold of that class. Every
        image passes at tau = 0.
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
        """Raises MethodError if a smaller share than `least` passed over the last steps."""
        kept_frac = self.kept_frac.item()
        if kept_frac < least:
            raise MethodError(
                f"only {100 * kept_frac:.1f} % of the images pass the threshold: lower it with "
                f"--set tau={self.tau / 2:g}"
            )


def filled_by_passing(passes_B: Tensor, num: int) -> Tensor:
    """Return `num` rows [num] of [B]: those that pass, in order, then draws of them. OURS.

    Only images that pass reach the student, so that only they set the statistics of its BatchNorms.
    If none passes, the rows are the first ones.
    """
    rows = torch.arange(num, device=passes_B.device)
    position = torch.arange(len(passes_B), device=passes_B.device) / len(passes_B)
    order = (passes_B - position).topk(num).indices
    count = passes_B.sum().clamp_max(num)
    drawn = (devices.send(torch.rand(num).numpy(), passes_B.device) * count).long()
    return order[torch.where((rows < count) | (count == 0), rows, drawn)]


def largest(values_B: Tensor, weights_B: Tensor, num: int) -> Tensor:
    """Return the rows [num] of the largest values [B]; images of weight zero come last. OURS."""
    return values_B.masked_fill(weights_B == 0, -torch.inf).topk(num).indices
