"""What the losses share: full precision under autocast, unit rows, checks and their error."""

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


def unit(x: Tensor, least: float = MIN_NORM) -> Tensor:
    """Rows [..., D] of length 1; those shorter than `least` are divided by that instead."""
    return F.normalize(x, dim=-1, eps=least)


def check_rows(first: Tensor, second: Tensor, *, same_width: bool, least: int = 1) -> None:
    """Raises LossError unless both are [B, ...] of equal B >= `least` (and of equal width)."""
    shapes = f"{list(first.shape)} and {list(second.shape)}"
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise LossError(f"two matrices with a row per sample are wanted, not {shapes}")
    if same_width and first.shape != second.shape:
        raise LossError(f"both must be of the same width, not {shapes}")
    if len(first) < least:
        raise LossError(f"at least {least} samples in a batch are wanted, not {len(first)}")


def check_features(first: Tensor, second: Tensor) -> None:
    """Raises LossError unless both are [B, D] or both [B, D, H, W], and of equal shape."""
    if first.ndim not in (2, 4) or first.shape != second.shape:
        raise LossError(
            "two tensors of one shape, [B, D] or [B, D, H, W], are wanted, "
            f"not {list(first.shape)} and {list(second.shape)}"
        )


def check_maps(first: Tensor, second: Tensor) -> None:
    """Raises LossError unless both are [B, D, H, W] of equal B; D, H and W may differ."""
    if first.ndim != 4 or second.ndim != 4 or len(first) != len(second):
        raise LossError(
            "two maps [B, D, H, W] of equal B are wanted, "
            f"not {list(first.shape)} and {list(second.shape)}"
        )


def check_weights(weights_B: Tensor, num: int) -> None:
    """Raises LossError unless there is a weight for each of `num` samples."""
    if weights_B.shape != (num,):
        raise LossError(f"weights must be [{num}], not {list(weights_B.shape)}")


def check_classes(classes_B: Tensor, num: int) -> None:
    """Raises LossError unless there is an integer class for each of `num` samples."""
    if classes_B.shape != (num,):
        raise LossError(f"classes must be [{num}], not {list(classes_B.shape)}")
    if classes_B.is_floating_point():
        raise LossError(f"classes must be integers, not {classes_B.dtype}")


def partner_weights(weights_B: Tensor | None, rows_BD: Tensor) -> Tensor:
    """What each row counts as another's partner, [B], in the rows' dtype: 1 unless given.

    Raises LossError for weights of another shape.
    """
    if weights_B is None:
        return rows_BD.new_ones(len(rows_BD))
    check_weights(weights_B, len(rows_BD))
    return weights_B.to(rows_BD.dtype)


def same_image_or_class(rows_BD: Tensor, classes_B: Tensor | None) -> Tensor:
    """[B, B], true for the pairs that are no negatives: a row and itself, rows of one class.

    Raises LossError for classes of another shape.
    """
    if classes_B is None:
        return torch.eye(len(rows_BD), dtype=torch.bool, device=rows_BD.device)
    check_classes(classes_B, len(rows_BD))
    return classes_B[:, None] == classes_B[None, :]


def check_positive(name: str, value: float) -> None:
    """Raises LossError unless `value` is above zero."""
    if not value > 0:
        raise LossError(f"{name} must be above 0, not {value}")
