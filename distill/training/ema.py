"""A running mean of a net's weights, which often does better than the last ones (EMA)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """m <- d m + (1 - d) w after each step, over weights and running statistics alike.

    d = min(decay, (1 + t) / (10 + t)) at step t, so that the first weights are soon forgotten
    (as in TensorFlow's ExponentialMovingAverage). Counters are the net's own.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        state = module.state_dict(keep_vars=True)
        self.own = {k: v.detach() for k, v in state.items() if v.is_floating_point()}
        self.mean = {k: v.clone() for k, v in self.own.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after `step` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.mean.values()), list(self.own.values()), 1 - decay)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within the block the module has the mean weights, after it its own again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, own in self.own.items():
            before = own.clone()
            own.copy_(self.mean[name])
            self.mean[name].copy_(before)

    def state_dict(self) -> dict[str, Tensor]:
        """The mean by the module's own names."""
        return dict(self.mean)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        for name, value in state.items():
            self.mean[name].copy_(value)
