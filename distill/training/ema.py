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
    (as in TensorFlow's ExponentialMovingAverage). Counters stay the net's.

    torch.optim.swa_utils.AveragedModel is not used: it copies the first weights where this mean
    begins with the initial ones, it hands its counter to the device (a wait per step on a GPU) to
    get a decay that depends on the step, and it holds a copy of the module, whereas the net that a
    method deploys belongs to the module in training. The update is the same `_foreach_lerp_`.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        state = module.state_dict(keep_vars=True)
        self.weights = {k: v.detach() for k, v in state.items() if v.is_floating_point()}
        self.mean = {k: v.clone() for k, v in self.weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Adds the weights after `step` steps to the mean."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.mean.values()), list(self.weights.values()), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module has the mean weights within the block, and its weights again after it."""
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
        """The mean weights [N, ...] by parameter name."""
        return dict(self.mean)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the mean weights from `state_dict`."""
        for name, value in state.items():
            self.mean[name].copy_(value)
