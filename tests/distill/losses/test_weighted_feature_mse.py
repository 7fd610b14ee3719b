"""The alignment loss of KD3 and its weight: loops, torch, bounds, no gradient of the weight."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distill.losses._precision import LossError
from distill.losses.weighted_feature_mse import alignment_weight, weighted_feature_mse
from tests.support.reference import normal


def test_the_weight_matches_the_formula() -> None:
    student, teacher = normal(5, 4), normal(5, 4, seed=1)
    found = alignment_weight(student, teacher)
    for row, value in enumerate(found.tolist()):
        distance = math.dist(student[row].tolist(), teacher[row].tolist())
        assert value == pytest.approx(1 / (1 + math.exp(-distance)))
    torch.testing.assert_close(found, (teacher - student).norm(dim=1).sigmoid())


@given(st.integers(0, 1000), st.floats(0.0, 1e5))
@settings(max_examples=30, deadline=None)
def test_the_weight_stays_within_its_bounds(seed: int, scale: float) -> None:
    student, teacher = scale * normal(4, 6, seed=seed), scale * normal(4, 6, seed=seed + 1)
    weight = alignment_weight(student, teacher)
    assert ((weight >= 0.5) & (weight <= 1)).all()
    assert torch.equal(weight, alignment_weight(teacher, student))
    assert (alignment_weight(teacher, teacher) == 0.5).all()


def test_the_weight_has_no_gradient() -> None:
    student = normal(4, 6).requires_grad_()
    assert not alignment_weight(student, normal(4, 6, seed=1)).requires_grad


def test_the_loss_equals_a_slow_loop() -> None:
    student, teacher, weight = normal(3, 2, 3, 4), normal(3, 2, 3, 4, seed=1), normal(3).abs()
    found = weighted_feature_mse(student, teacher, weight)
    for row, value in enumerate(found.tolist()):
        pairs = zip(student[row].flatten().tolist(), teacher[row].flatten().tolist(), strict=True)
        assert value == pytest.approx(weight[row].item() * sum((a - b) ** 2 for a, b in pairs) / 24)
    torch.testing.assert_close(found, weight * (student - teacher).pow(2).mean(dim=(1, 2, 3)))
    assert (weighted_feature_mse(teacher, teacher, weight) == 0).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: alignment_weight(normal(3, 4), normal(3, 5)),
        lambda: weighted_feature_mse(normal(3, 4), normal(3, 4), normal(3)),
        lambda: weighted_feature_mse(normal(3, 4, 2, 2), normal(3, 5, 2, 2), normal(3)),
        lambda: weighted_feature_mse(normal(3, 4, 2, 2), normal(3, 4, 2, 2), normal(2)),
        lambda: weighted_feature_mse(normal(3, 4, 2, 2), normal(3, 4, 2, 2), normal(3, 1)),
    ],
)
def test_bad_shapes_raise(call: Callable[[], Tensor]) -> None:
    with pytest.raises(LossError):
        call()
