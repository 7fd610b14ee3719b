"""What the losses share: full precision under autocast, unit rows, shape checks, LossError."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

import torch
from torch import Tensor
from torch.nn import functional as F

P = ParamSpec("P")
# Bounds the gradient of a row of zeros (every ReLU off); real features are far longer.
MIN_NORM = 1e-4


class LossError(ValueError):
    """Tensors or settings for which a loss is not defined."""


def full_precision(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Decorate `loss` to run outside autocast, its floating tensors [B, ...] in float32. OURS.

    float64 tensors stay float64.
    """

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
    """Scale rows [..., D] to length 1; a row shorter than `least` is divided by `least`. OURS.

    Example:
        >>> unit(torch.tensor([3.0, 4.0])).tolist()
        [0.6000000238418579, 0.800000011920929]
    """
    return F.normalize(x, dim=-1, eps=least)


def check_rows(first: Tensor, second: Tensor, *, same_width: bool, least: int = 1) -> None:
    """Check that both are [B, D] of equal B >= `least`, and of equal D if `same_width`. OURS.

    Raises LossError otherwise.
    """
    shapes = f"{list(first.shape)} and {list(second.shape)}"
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise LossError(f"two matrices with one row per sample are expected, not {shapes}")
    if same_width and first.shape != second.shape:
        raise LossError(f"both matrices must have the same width, not {shapes}")
    if len(first) < least:
        raise LossError(f"at least {least} samples in a batch are needed, not {len(first)}")


def check_features(first: Tensor, second: Tensor) -> None:
    """Check that both are [B, D] or both [B, D, H, W], of equal shape. OURS.

    Raises LossError otherwise.
    """
    if first.ndim not in (2, 4) or first.shape != second.shape:
        raise LossError(
            "two tensors of equal shape, [B, D] or [B, D, H, W], are expected, "
            f"not {list(first.shape)} and {list(second.shape)}"
        )


def check_maps(first: Tensor, second: Tensor) -> None:
    """Check that both are [B, D, H, W] of equal B; else raises LossError. OURS.

    D, H and W may differ.
    """
    if first.ndim != 4 or second.ndim != 4 or len(first) != len(second):
        raise LossError(
            "two maps [B, D, H, W] of equal B are expected, "
            f"not {list(first.shape)} and {list(second.shape)}"
        )


def check_weights(weights_B: Tensor, num: int) -> None:
    """Check that weights [B] are one per sample, B = `num`; else raises LossError. OURS."""
    if weights_B.shape != (num,):
        raise LossError(f"weights must be [{num}], not {list(weights_B.shape)}")


def check_classes(classes_B: Tensor, num: int) -> None:
    """Check that classes [B] are integers, one per sample, B = `num`. OURS.

    Raises LossError otherwise.
    """
    if classes_B.shape != (num,):
        raise LossError(f"classes must be [{num}], not {list(classes_B.shape)}")
    if classes_B.is_floating_point():
        raise LossError(f"classes must be integers, not {classes_B.dtype}")


def partner_weights(weights_B: Tensor | None, rows_BD: Tensor) -> Tensor:
    """Return the weight [B] of each row of [B, D] as a partner of other rows; 1 by default. OURS.

    The dtype is that of the rows. Raises LossError if `weights_B` has another shape.
    """
    if weights_B is None:
        return rows_BD.new_ones(len(rows_BD))
    check_weights(weights_B, len(rows_BD))
    return weights_B.to(rows_BD.dtype)


def same_image_or_class(rows_BD: Tensor, classes_B: Tensor | None) -> Tensor:
    """Mark the pairs [B, B] that are not negatives: a row and itself, rows of one class. OURS.

    Raises LossError if `classes_B` [B] has another shape or is not of integers.
    """
    if classes_B is None:
        return torch.eye(len(rows_BD), dtype=torch.bool, device=rows_BD.device)
    check_classes(classes_B, len(rows_BD))
    return classes_B[:, None] == classes_B[None, :]


def check_positive(name: str, value: float) -> None:
    """Check that `value` is above zero; else raises LossError. OURS."""
    if not value > 0:
        raise LossError(f"{name} must be above 0, not {value}")
