"""A running mean of a net's weights (EMA), often more accurate than the last weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """The running mean m <- d m + (1 - d) w of a module's weights and running statistics.

    d = min(decay, (1 + t) / (10 + t)) at step t, so that the first weights are forgotten soon
    (as in TensorFlow's ExponentialMovingAverage). Integer counters are not averaged.

    torch.optim.swa_utils.AveragedModel is not used, for three reasons. It starts with a copy of the
    weights after the first step, whereas this mean starts with the initial weights. For a decay
    that depends on the step, it copies its counter between devices (a wait per step on a GPU). It
    holds a copy of the module, whereas the net that a method deploys belongs to the module in
    training. The update is the same `_foreach_lerp_`.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        state = module.state_dict(keep_vars=True)
        self.weights = {k: v.detach() for k, v in state.items() if v.is_floating_point()}
        self.mean = {k: v.clone() for k, v in self.weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after `step` steps to the mean."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.mean.values()), list(self.weights.values()), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the module the mean weights within the block, then restore its weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self.weights.items():
            before = weight.clone()
            weight.copy_(self.mean[name])
            self.mean[name].copy_(before)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the mean weights and running statistics [N, ...] by name."""
        return dict(self.mean)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, value in state.items():
            self.mean[name].copy_(value)
