"""SGD with Nesterov momentum, decay only where it belongs; a cosine or drops after a warm-up."""

from __future__ import annotations

import math

import torch
from torch import nn

MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
WARMUP_FRAC = 0.02


def make(module: nn.Module, without: torch.optim.Optimizer | None = None) -> torch.optim.SGD:
    """SGD over what trains in `module`; norms and biases (below two dimensions) do not decay.

    What the optimiser `without` trains is left to it. The learning rate is set at every step,
    see `learning_rate`.
    """
    groups = [] if without is None else without.param_groups
    others = {id(p) for group in groups for p in group["params"]}
    trained = [p for p in module.parameters() if p.requires_grad and id(p) not in others]
    decay = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(decay, lr=0.0, momentum=MOMENTUM, nesterov=True)


def learning_rate(progress: float, peak: float, drop_at: tuple[float, ...] | None = None) -> float:
    """At `progress` in 0-1: linear up to `peak` over WARMUP_FRAC, then half a cosine to zero.

    With `drop_at` no cosine: a tenth from each of these shares of the training on.
    """
    if progress < WARMUP_FRAC:
        return peak * (progress / WARMUP_FRAC * 0.99 + 0.01)
    if drop_at is not None:
        return peak * 0.1 ** sum(progress >= place for place in drop_at)
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - WARMUP_FRAC) / (1 - WARMUP_FRAC)))


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """The same learning rate for every group."""
    for group in optimizer.param_groups:
        group["lr"] = value
