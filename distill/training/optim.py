"""The optimizers, SGD with momentum or Muon, and the schedule of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from distill.recipe import WARMUP_FRAC, WEIGHT_DECAY, Optimizer
from distill.training.muon import Muon, matrices

MOMENTUM = 0.9


def make_optimizers(
    module: nn.Module,
    kind: Optimizer | None = None,
    reserved: torch.optim.Optimizer | None = None,
    *,
    weight_decay: float = WEIGHT_DECAY,
    decay_norms: bool = False,
    nesterov: bool = True,
) -> dict[str, torch.optim.Optimizer]:
    """Return the optimizers of a module by name: "sgd", and also "muon" if `kind` is muon.

    SGD trains all parameters, or with Muon all but the weight matrices. Norms and biases (below two
    dimensions) decay only with `decay_norms`. Parameters of the optimizer `reserved` are left to
    it. The learning rate is set at every step, see `learning_rate`.
    """
    groups = reserved.param_groups if reserved else []
    others = {id(p) for group in groups for p in group["params"]}
    trained = [p for p in module.parameters() if p.requires_grad and id(p) not in others]
    optimizers: dict[str, torch.optim.Optimizer] = {}
    if kind == "muon":
        mixing = set(map(id, matrices(module)))
        optimizers["muon"] = Muon([p for p in trained if id(p) in mixing])
        trained = [p for p in trained if id(p) not in mixing]
    decay = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {
            "params": [p for p in trained if p.ndim < 2],
            "weight_decay": weight_decay if decay_norms else 0.0,
        },
    ]
    optimizers["sgd"] = torch.optim.SGD(
        decay, lr=0.0, momentum=MOMENTUM, nesterov=nesterov, fused=True
    )
    return optimizers


def learning_rate(
    progress: float,
    peak: float,
    drop_at: tuple[float, ...] | None = None,
    warmup_frac: float = WARMUP_FRAC,
) -> float:
    """Return the learning rate at `progress` in 0-1: a linear warm-up, then half a cosine to zero.

    The warm-up to `peak` takes the first `warmup_frac` of the training. With `drop_at`, the rate
    falls to a tenth at each of these shares of the training, and there is no cosine.

    Example:
        >>> learning_rate(1.0, peak=0.1), learning_rate(0.6, peak=1.0, drop_at=(0.5, 0.75))
        (0.0, 0.1)
    """
    if progress < warmup_frac:
        return peak * (progress / warmup_frac * 0.99 + 0.01)
    if drop_at is not None:
        return peak * 0.1 ** sum(progress >= share for share in drop_at)
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - warmup_frac) / (1 - warmup_frac)))


def set_learning_rate(optimizers: Mapping[str, torch.optim.Optimizer], value: float) -> None:
    """Set the learning rate of every optimizer to `value`."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = value
