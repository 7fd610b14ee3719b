"""Attention transfer, and maps pooled to one size: loops, torch, scale."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses._maps import same_side
from distill.losses._precision import LossError
from distill.losses.attention import attention
from tests.support.reference import normal


def slow_attention(x: Tensor) -> list[float]:
    depth, height, width = x.shape
    a = [
        sum(x[d, h, w].item() ** 2 for d in range(depth)) / depth
        for h in range(height)
        for w in range(width)
    ]
    norm = math.sqrt(sum(value * value for value in a))
    return [value / norm for value in a]


def test_the_loss_equals_a_slow_loop() -> None:
    student, teacher = normal(4, 2, 3, 2), normal(4, 5, 3, 2, seed=1)
    found = attention(student, teacher)
    for row, value in enumerate(found.tolist()):
        pairs = zip(slow_attention(student[row]), slow_attention(teacher[row]), strict=True)
        assert value == pytest.approx(sum((a - b) ** 2 for a, b in pairs))
    s, t = (F.normalize(x.pow(2).mean(1).flatten(1)) for x in (student, teacher))
    torch.testing.assert_close(found.mean() / 6, F.mse_loss(s, t))


def test_the_loss_ignores_scale_sign_and_channel_rotation() -> None:
    student, teacher = normal(4, 2, 3, 2), normal(4, 5, 3, 2, seed=1)
    loss = attention(student, teacher)
    assert (loss < 2).all()
    torch.testing.assert_close(attention(-3 * student, teacher / 7), loss)
    turn, _ = torch.linalg.qr(normal(5, 5, seed=2))
    turned = torch.einsum("bdhw,de->behw", teacher, turn)
    torch.testing.assert_close(attention(student, turned), loss)
    assert attention(turned, teacher).abs().max() < 1e-12


def test_the_larger_map_is_pooled() -> None:
    student, teacher = normal(4, 2, 4, 3), normal(4, 5, 2, 6, seed=1)
    wanted = attention(F.avg_pool2d(student, (2, 1)), F.avg_pool2d(teacher, (1, 2)))
    torch.testing.assert_close(attention(student, teacher), wanted)


def slow_pool(x: Tensor, height: int, width: int) -> list[list[float]]:
    """Pool one channel [H, W]: each bin is the mean of every pixel that it touches."""
    rows, columns = (
        [range(i * old // new, -(-(i + 1) * old // new)) for i in range(new)]
        for old, new in zip(x.shape, (height, width), strict=True)
    )
    means = []
    for row in rows:
        bins = [[x[r, c].item() for r in row for c in column] for column in columns]
        means.append([sum(values) / len(values) for values in bins])
    return means


def test_both_maps_get_the_same_side() -> None:
    first, second = normal(2, 3, 7, 4), normal(2, 5, 3, 6, seed=1)
    small, other = same_side(first, second)
    assert small.shape == (2, 3, 3, 4)
    assert other.shape == (2, 5, 3, 4)
    for found, x in ((small, first), (other, second)):
        torch.testing.assert_close(
            found[1, 2], torch.tensor(slow_pool(x[1, 2], 3, 4), dtype=torch.float64)
        )
    again = same_side(small, other)
    assert again[0] is small
    assert again[1] is other
    for ours, theirs in zip(same_side(second, first), (other, small), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("loss", [attention, same_side])
@pytest.mark.parametrize(
    "shapes", [((3, 4), (3, 4)), ((3, 4, 2, 2), (2, 4, 2, 2)), ((3, 4, 2, 2), (3, 4, 2))]
)
def test_bad_shapes_raise(loss: Callable[..., object], shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(LossError):
        loss(*(normal(*shape) for shape in shapes))
