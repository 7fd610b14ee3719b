"""Muon, of convolutions too: each step has its gradient's directions, all of the same length.

Muon (Jordan et al., 2024, kellerjordan.github.io/posts/muon), in the form of torch.optim.Muon,
which takes matrices alone: here a kernel [O, I, h, w] is the matrix [O, I h w]. What a small net
learns slowly by SGD, the directions of small gradients, it learns as fast as the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


def matrices(module: nn.Module) -> Iterator[Tensor]:
    """The weights in `module` that are matrices: of layers that mix channels, and train.

    Depthwise and grouped convolutions, norms, biases and embeddings are none.
    """
    for layer in module.modules():
        mixes = isinstance(layer, (nn.Linear, nn.Conv2d)) and getattr(layer, "groups", 1) == 1
        weight = layer.weight if mixes else None
        if isinstance(weight, Tensor) and weight.is_leaf and weight.requires_grad:
            yield weight


class Muon(torch.optim.Muon):
    """torch.optim.Muon, with its defaults, of weights of two and of four dimensions."""

    def __init__(self, weights: list[Tensor]) -> None:
        self.weights = weights
        views = [nn.Parameter(_rows(w, w.detach()).view(len(w), -1)) for w in weights]
        super().__init__(views, lr=0.0)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of the weights by their gradients, which stay as they are."""
        views: list[Tensor] = self.param_groups[0]["params"]
        for weight, view in zip(self.weights, views, strict=True):
            view.grad = None if weight.grad is None else _rows(weight, weight.grad).flatten(1)
        super().step(closure)  # type: ignore[no-untyped-call]
        for view in views:
            view.grad = None


def _rows(weight: Tensor, values: Tensor) -> Tensor:
    """`values` of the weight's shape with its columns in the order that they lie in memory.

    So that a weight in channels_last is viewed, not copied; to Muon the order of columns is one.
    """
    return values if weight.is_contiguous() else values.permute(0, 2, 3, 1)
