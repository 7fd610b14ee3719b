"""SGD with Nesterov momentum, decay only where it belongs, or Muon; a cosine after a warm-up."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from distill.recipe import Optimizer
from distill.training.muon import Muon, matrices

MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
WARMUP_FRAC = 0.02


def make_optimizers(
    module: nn.Module, kind: Optimizer | None = None, own: torch.optim.Optimizer | None = None
) -> dict[str, torch.optim.Optimizer]:
    """SGD over what trains in `module`, by its name; with `kind` muon also Muon, over its matrices.

    Norms and biases (below two dimensions) do not decay. What a method's `own` optimizer trains is
    left to it. The learning rate is set at every step, see `learning_rate`.
    """
    others = {id(p) for group in (own.param_groups if own else []) for p in group["params"]}
    trained = [p for p in module.parameters() if p.requires_grad and id(p) not in others]
    optimizers: dict[str, torch.optim.Optimizer] = {}
    if kind == "muon":
        mixing = set(map(id, matrices(module)))
        optimizers["muon"] = Muon([p for p in trained if id(p) in mixing])
        trained = [p for p in trained if id(p) not in mixing]
    decay = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers["sgd"] = torch.optim.SGD(decay, lr=0.0, momentum=MOMENTUM, nesterov=True, fused=True)
    return optimizers


def learning_rate(progress: float, peak: float, drop_at: tuple[float, ...] | None = None) -> float:
    """At `progress` in 0-1: linear up to `peak` over WARMUP_FRAC, then half a cosine to zero.

    With `drop_at` no cosine: a tenth from each of these shares of the training on.
    """
    if progress < WARMUP_FRAC:
        return peak * (progress / WARMUP_FRAC * 0.99 + 0.01)
    if drop_at is not None:
        return peak * 0.1 ** sum(progress >= share for share in drop_at)
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - WARMUP_FRAC) / (1 - WARMUP_FRAC)))


def set_learning_rate(optimizers: Mapping[str, torch.optim.Optimizer], value: float) -> None:
    """The same learning rate for all of them."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = value
