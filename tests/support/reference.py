"""What the slow references are made of: seeded tensors and plain floats."""

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
    """What a loss is given and what its reference counts with."""
    if weights is None:
        return None, [1.0] * num
    return torch.tensor(weights, dtype=torch.float64), weights
