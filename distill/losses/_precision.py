"""What the losses share: full precision under autocast, the kind of their errors, unit rows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

import torch
from torch import Tensor
from torch.nn import functional as F

P = ParamSpec("P")
# A row of length zero (all ReLUs shut) keeps a bounded gradient; real features are far longer.
MIN_NORM = 1e-4


class LossError(ValueError):
    """Tensors that a loss cannot be taken of."""


def full_precision(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Runs `loss` outside autocast with its floating tensors in float32 (float64 stays)."""

    @functools.wraps(loss)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        first = next(value for value in args if isinstance(value, Tensor))
        with torch.autocast(first.device.type, enabled=False):
            return loss(*map(_full, args), **{k: _full(v) for k, v in kwargs.items()})

    return wrapped


def _full(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.promote_types(value.dtype, torch.float32))
    return value


def unit(x_BD: Tensor) -> Tensor:
    """Rows of length 1, [B, D]; shorter than MIN_NORM they are divided by that instead."""
    return F.normalize(x_BD, dim=1, eps=MIN_NORM)


def check_rows(first: Tensor, second: Tensor, *, same_width: bool, least: int = 1) -> None:
    """Raises LossError unless both are [B, ...] of equal B >= `least` (and of equal width)."""
    shapes = f"{list(first.shape)} and {list(second.shape)}"
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise LossError(f"two matrices with a row per sample are wanted, not {shapes}")
    if same_width and first.shape != second.shape:
        raise LossError(f"both must be of the same width, not {shapes}")
    if len(first) < least:
        raise LossError(f"at least {least} samples in a batch are wanted, not {len(first)}")


def check_positive(name: str, value: float) -> None:
    """Raises LossError unless `value` is above zero."""
    if not value > 0:
        raise LossError(f"{name} must be above 0, not {value}")
