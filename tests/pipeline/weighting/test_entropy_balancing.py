"""Entropy balancing equals slow references, is optimal, and has the expected invariances."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes.shards.writer import effective_sample_size
from pipeline.weighting.entropy_balancing import (
    MAX_STEPS,
    balance,
    capped_weights,
    linear_scores,
    solve,
)

Array = npt.NDArray[Any]


def rows(seed: int, n: int = 60, width: int = 3, shift: float = 0.3) -> Array:
    return (np.random.default_rng(seed).normal(size=(n, width)) + shift).astype(np.float32)


def weights(z: Array, cap: float, ridge: float) -> Array:
    multipliers, _ = solve(z, cap, ridge, np.zeros(z.shape[1]))
    return capped_weights(linear_scores(z, multipliers), cap)


def slow_weights(z: Array, cap: float, ridge: float) -> Array:
    """Compute the weights by gradient descent on the dual, with v by bisection, in plain floats."""
    multipliers = np.zeros(z.shape[1])

    def weights_of(multipliers: Array) -> Array:
        raw = [float(row @ multipliers) for row in z.astype(np.float64)]
        low, high = min(raw) - 50, max(raw) + 50
        for _ in range(200):
            middle = (low + high) / 2
            mean = sum(min(cap, math.exp(score - middle)) for score in raw) / len(raw)
            low, high = (middle, high) if mean > 1 else (low, middle)
        return np.array([min(cap, math.exp(score - low)) for score in raw])

    for _ in range(400):
        slack = (weights_of(multipliers)[:, None] * z).mean(0)
        multipliers = multipliers - 0.3 * (slack + ridge * multipliers)
    return weights_of(multipliers)


@pytest.mark.parametrize("cap", [1.5, 3.0, 1e6])
@pytest.mark.parametrize("ridge", [0.05, 1.0])
def test_the_weights_equal_a_slow_reference(cap: float, ridge: float) -> None:
    z = rows(1)
    np.testing.assert_allclose(weights(z, cap, ridge), slow_weights(z, cap, ridge), atol=2e-5)


def test_two_points_match_values_by_hand() -> None:
    """Even weights give 1, 1, 1, -1 a mean of 1/2; the solution gives both signs equal weight."""
    z = np.array([[1.0], [1.0], [1.0], [-1.0]], np.float32)
    np.testing.assert_allclose(weights(z, 100, 1e-9), [2 / 3, 2 / 3, 2 / 3, 2], rtol=1e-6)


@given(st.integers(0, 10_000), st.floats(1.3, 10), st.floats(1e-3, 10))
@settings(max_examples=60, deadline=None)
def test_the_result_is_the_optimum(seed: int, cap: float, ridge: float) -> None:
    """The objective is convex, so that only the solution meets the optimality conditions."""
    z = rows(seed, shift=float(seed % 7) / 5)
    multipliers, _ = solve(z, cap, ridge, np.zeros(3))
    weight = capped_weights(linear_scores(z, multipliers), cap)
    assert weight.mean() == pytest.approx(1, abs=1e-9)
    assert weight.min() >= 0
    assert weight.max() <= cap
    np.testing.assert_allclose((weight[:, None] * z).mean(0), -ridge * multipliers, atol=1e-7)
    free = (weight < cap * (1 - 1e-9)) & (weight > 1e-200)
    gap = np.log(weight[free]) - linear_scores(z, multipliers)[free]
    np.testing.assert_allclose(gap, gap[:1].repeat(len(gap)), rtol=1e-9, atol=1e-9)


def test_a_feasible_target_is_met() -> None:
    z = rows(3, n=4000, width=5, shift=0.2)
    weight = weights(z, 20, 1e-6)
    assert np.abs((weight[:, None] * z).mean(0)).max() < 1e-5
    assert np.abs(z.mean(0)).max() > 0.15


def test_an_infeasible_target_leaves_slack_on_the_ridge() -> None:
    z = np.abs(rows(4)) + 0.1
    multipliers, steps = solve(z, 4.0, 0.1, np.zeros(3))
    weight = capped_weights(linear_scores(z, multipliers), 4.0)
    slack = (weight[:, None] * z).mean(0)
    np.testing.assert_allclose(slack, -0.1 * multipliers, atol=1e-7)
    assert (slack > 0.05).all()
    assert (slack < z.mean(0)).all()
    assert steps < MAX_STEPS


@given(st.integers(0, 10_000), st.floats(1.3, 8))
@settings(max_examples=30, deadline=None)
def test_order_and_copies_do_not_change_the_weights(seed: int, cap: float) -> None:
    z = rows(seed)
    single = weights(z, cap, 0.1)
    order = np.random.default_rng(seed).permutation(len(z))
    np.testing.assert_allclose(weights(z[order], cap, 0.1), single[order], rtol=1e-6)
    np.testing.assert_allclose(weights(np.tile(z, (2, 1)), cap, 0.1)[: len(z)], single, rtol=1e-6)


def test_a_target_that_is_already_met_gives_even_weights() -> None:
    half = rows(5)
    z = np.concatenate([half, -half])
    np.testing.assert_allclose(weights(z, 4, 0.01), 1, atol=1e-6)
    tilt = balance(z, 4, 0.5)
    np.testing.assert_allclose(capped_weights(linear_scores(z, tilt.multipliers), 4), 1, atol=1e-5)


@given(st.integers(0, 10_000), st.floats(1.1, 9), st.integers(1, 60), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_the_moments_never_get_worse(seed: int, cap: float, n: int, width: int) -> None:
    z = rows(seed, n=n, width=width)
    weight = capped_weights(linear_scores(z, balance(z, cap, 0.5).multipliers), cap)
    after, before = (weight[:, None] * z).mean(0), z.mean(0)
    assert np.square(after).sum() <= np.square(before).sum() * (1 + 1e-6)


@pytest.mark.parametrize("floor", [0.4, 0.7, 0.95])
def test_the_ridge_keeps_the_sample_large_enough(floor: float) -> None:
    z = rows(7, n=2000, width=8, shift=0.5)
    tilt, easiest = balance(z, 50, floor), float(z.var(0, dtype=np.float64).sum()) / 2000
    size = effective_sample_size(capped_weights(linear_scores(z, tilt.multipliers), 50))
    assert size >= (floor - 0.01) * 2000
    assert tilt.ridge > easiest
    before, after = (
        z.mean(0),
        (capped_weights(linear_scores(z, tilt.multipliers), 50)[:, None] * z).mean(0),
    )
    assert np.square(after).sum() < np.square(before).sum()
    easy = rows(8, n=2000, width=8, shift=0.01)
    lowest = float(easy.var(0, dtype=np.float64).sum()) / 2000
    assert balance(easy, 50, 0.5).ridge == pytest.approx(lowest), "the target is easily met"


@pytest.mark.parametrize("value", [0.0, 1.0, 300.0])
@pytest.mark.parametrize("shape", [(1, 4), (2, 9), (50, 1)])
def test_constant_columns_give_even_weights(shape: tuple[int, int], value: float) -> None:
    z = np.full(shape, value, np.float32)
    weight = capped_weights(linear_scores(z, balance(z, 4, 0.5).multipliers), 4)
    np.testing.assert_allclose(weight, 1, atol=1e-6)


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=50), st.floats(1.01, 9))
def test_capped_weights_has_mean_one(score: list[float], cap: float) -> None:
    weight = capped_weights(np.array(score), cap)
    assert weight.mean() == pytest.approx(1, abs=1e-6)
    assert weight.max() <= cap
    assert (np.diff(weight[np.argsort(score)]) >= -1e-12).all()


def test_capped_weights_gives_the_excess_to_the_others() -> None:
    weight = capped_weights(np.log([100.0, 1, 1, 1]), 2.0)
    np.testing.assert_allclose(weight, [2, 2 / 3, 2 / 3, 2 / 3], rtol=1e-9)
