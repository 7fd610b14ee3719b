"""Seeded tensors and plain floats for the slow references."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def cosine(a: Tensor, b: Tensor) -> float:
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    norms = [math.sqrt(sum(x * x for x in v.tolist())) for v in (a, b)]
    return float(dot / (norms[0] * norms[1]))


def weights_or_ones(weights: list[float] | None, num: int) -> tuple[Tensor | None, list[float]]:
    """Return the weights for a loss (maybe None) and the weights for its reference."""
    if weights is None:
        return None, [1.0] * num
    return torch.tensor(weights, dtype=torch.float64), weights
