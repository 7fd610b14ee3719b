"""The matrix Q of DFND and its loss: loops, torch, rows that sum to 1."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from distill.losses._precision import LossError
from distill.losses.transition import noise_matrix, transition
from tests.support.reference import normal


def slow_noise(theta: list[list[float]], accuracy: float) -> list[list[float]]:
    rows = []
    for k, row in enumerate(theta):
        e = [math.exp(x) for x in row]
        others = [(1 - accuracy) * x / sum(e) for x in e]
        rows.append([*others[:k], accuracy, *others[k:]])
    return rows


@pytest.mark.parametrize("num", [2, 3, 7])
def test_noise_equals_a_slow_loop(num: int) -> None:
    theta = normal(num, num - 1)
    found = noise_matrix(theta, 0.8)
    for row, wanted in zip(found.tolist(), slow_noise(theta.tolist(), 0.8), strict=True):
        assert row == pytest.approx(wanted)
    typed = torch.full((num, num), 0.8, dtype=torch.float64)
    typed[~torch.eye(num, dtype=torch.bool)] = (0.2 * theta.softmax(1)).flatten()
    torch.testing.assert_close(found, typed)


@given(st.integers(0, 1000), st.integers(2, 12), st.floats(0.01, 0.99), st.floats(0.0, 1e4))
@settings(max_examples=30, deadline=None)
def test_rows_sum_to_one(seed: int, num: int, accuracy: float, scale: float) -> None:
    noise = noise_matrix(scale * normal(num, num - 1, seed=seed), accuracy)
    torch.testing.assert_close(noise.sum(1), torch.ones(num, dtype=torch.float64))
    assert (noise >= 0).all()
    assert (noise.diagonal() == accuracy).all()


def test_transition_matches_the_formula() -> None:
    student, classes = normal(5, 4), torch.tensor([3, 0, 0, 1, 2])
    noise = noise_matrix(normal(4, 3, seed=1), 0.7)
    found = transition(student, classes, noise)
    for row, value in enumerate(found.tolist()):
        e = [math.exp(x) for x in student[row].tolist()]
        likelihood = sum(e[k] / sum(e) * noise[k, classes[row]].item() for k in range(4))
        assert value == pytest.approx(-math.log(likelihood))
    typed = F.nll_loss((student.softmax(1) @ noise).log(), classes, reduction="none")
    torch.testing.assert_close(found, typed)


def test_transition_without_noise_is_cross_entropy() -> None:
    student, classes = normal(5, 4), torch.tensor([3, 0, 0, 1, 2])
    wanted = F.cross_entropy(student, classes, reduction="none")
    noise = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(transition(student, classes, noise), wanted)
    ends = 60000 * (2 * F.one_hot(classes, 4).float() - 1)
    assert transition(ends, classes, noise).abs().max() == 0
    assert transition(-ends, classes, noise).tolist() == pytest.approx([120000 + math.log(3)] * 5)


def test_gradients_reach_the_noise() -> None:
    student, theta = normal(5, 4).requires_grad_(), normal(4, 3, seed=1).requires_grad_()
    classes = torch.tensor([3, 0, 0, 1, 2])
    assert torch.autograd.gradcheck(
        lambda s, t: transition(s, classes, noise_matrix(t, 0.7)), (student, theta)
    )


@pytest.mark.parametrize("scale", [1.0, 100.0, 60000.0])
def test_underflowing_noise_keeps_finite_gradients(scale: float) -> None:
    student = (scale * normal(4, 6).sign()).float().requires_grad_()
    theta = (scale * normal(6, 5, seed=1).clamp(-1, 1)).float().requires_grad_()
    loss = transition(student, torch.tensor([0, 1, 2, 3]), noise_matrix(theta, 0.9))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    for leaf in (student, theta):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: noise_matrix(normal(4, 4), 0.5),
        lambda: noise_matrix(normal(4), 0.5),
        lambda: noise_matrix(normal(1, 0), 0.5),
        lambda: noise_matrix(normal(4, 3), 0.0),
        lambda: noise_matrix(normal(4, 3), 1.0),
        lambda: transition(normal(3, 4), torch.zeros(2, dtype=torch.long), torch.eye(4)),
        lambda: transition(normal(3, 4), torch.zeros(3), torch.eye(4)),
        lambda: transition(normal(3, 4), torch.zeros(3, dtype=torch.long), torch.eye(3)),
        lambda: transition(normal(3), torch.zeros(3, dtype=torch.long), torch.eye(3)),
    ],
)
def test_bad_arguments_raise(call: Callable[[], Tensor]) -> None:
    with pytest.raises(LossError):
        call()
