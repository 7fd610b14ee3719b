"""Weights: mean 1, no weight above the cap, balanced classes, matched moments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.shards.writer import effective_sample_size
from pipeline.method import Choice
from pipeline.pool import Pool
from pipeline.soft_targets import TEMPERATURE
from pipeline.weighting.entropy_balancing import capped_weights
from pipeline.weighting.weights import (
    Limits,
    Weighing,
    Weights,
    class_prior,
    stratified_positions,
    weigh,
)
from tests.support.pools import make_pool

Array = npt.NDArray[Any]
WIDTH = 6


def pool_with_moments(directory: Path, n: int = 900, shift: float = 0.4) -> Pool:
    generator = np.random.default_rng(0)
    return make_pool(
        directory,
        label=generator.choice(3, n, p=[0.7, 0.2, 0.1]),
        log_odds=generator.normal(1, 3, n),
        blocks=(n // 3, n // 3, n - 2 * (n // 3)),
        matrices={"moments": generator.normal(size=(n, WIDTH)) + shift},
    )


def weigh_rows(
    pool: Pool, rows: Array, weighing: Weighing, cap: float = 8.0, **limits: int
) -> Weights:
    return weigh(pool, rows, weighing, cap=cap, floor=0.3, seed=0, limits=Limits(**limits))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.floats(1.0, 8.0))
def test_class_prior_has_mean_one_and_a_cap(labels: list[int], cap: float) -> None:
    weight = capped_weights(class_prior(np.array(labels), 5), cap)
    assert weight.mean() == pytest.approx(1.0, rel=1e-6)
    assert weight.max() <= cap
    assert weight.min() > 0


def test_class_prior_balances_the_classes() -> None:
    label = np.repeat([0, 1, 2], [60, 30, 10])
    sums = np.bincount(label, capped_weights(class_prior(label, 4), 10))
    np.testing.assert_allclose(sums, sums.mean(), rtol=1e-9)


@pytest.mark.parametrize(
    "weighing", ["none", "class_prior", "soft_prior", "confidence", "moment_match"]
)
@pytest.mark.parametrize("cap", [1.0, 1.5, 4.0])
def test_every_kind_has_mean_one_and_a_cap(tmp_path: Path, weighing: Weighing, cap: float) -> None:
    pool = pool_with_moments(tmp_path, n=120)
    for rows in (np.arange(5, 110, 3), np.array([7]), np.zeros(0, np.int64)):
        weight = weigh_rows(pool, rows, weighing, cap).weight
        assert weight.dtype == np.float32
        assert weight.shape == rows.shape
        assert weight.max(initial=0) <= cap
        if len(rows):
            assert weight.mean() == pytest.approx(1, abs=1e-6)


def test_confidence_is_the_largest_probability(tmp_path: Path) -> None:
    pool = pool_with_moments(tmp_path)
    rows = np.arange(0, 900, 2)
    weight = weigh_rows(pool, rows, "confidence").weight
    expected = 1 / (1 + np.exp(-pool.column("log_odds")[rows].astype(np.float64)))
    np.testing.assert_allclose(weight, expected / expected.mean(), rtol=1e-5)


def test_moment_match_reaches_the_fingerprint(tmp_path: Path) -> None:
    pool = pool_with_moments(tmp_path)
    rows = np.sort(np.random.default_rng(1).choice(900, 700, replace=False))
    weights = weigh_rows(pool, rows, "moment_match")
    moments = np.concatenate([block.matrix("moments") for block in pool.blocks])[rows]
    before = moments.astype(np.float64).mean(0)
    after = (weights.weight[:, None] * moments.astype(np.float64)).mean(0)
    assert np.abs(before).min() > 0.3
    assert np.abs(after).max() < 0.05
    assert effective_sample_size(weights.weight) >= 0.29 * 700
    assert weights.note["weights"] == "moment_match"
    assert weights.note["solved_rows"] == 700
    repeated = weigh_rows(pool, rows, "moment_match")
    assert (repeated.weight == weights.weight).all()


def test_multipliers_from_a_sample_serve_all_rows(tmp_path: Path) -> None:
    pool = pool_with_moments(tmp_path, n=3000, shift=0.2)
    rows = np.arange(3000)
    full = weigh_rows(pool, rows, "moment_match").weight
    sampled = weigh_rows(pool, rows, "moment_match", solve_numbers=1500 * WIDTH)
    assert sampled.note["solved_rows"] == 1500
    assert sampled.weight.mean() == pytest.approx(1, abs=1e-6)
    assert np.corrcoef(sampled.weight, full)[0, 1] > 0.97
    repeated = weigh_rows(pool, rows, "moment_match", solve_numbers=1500 * WIDTH)
    assert (repeated.weight == sampled.weight).all(), "the sample is seeded"


def test_without_batchnorm_the_classes_are_balanced(tmp_path: Path) -> None:
    label = np.repeat([0, 1, 2], [60, 30, 10])
    pool = make_pool(tmp_path, label=label, log_odds=np.zeros(100))
    weights = weigh_rows(pool, np.arange(100), "moment_match")
    np.testing.assert_allclose(np.bincount(label, weights.weight), 100 / 3, rtol=1e-5)
    assert "no BatchNorm" in weights.note["note"]


def test_a_cap_below_one_is_refused(tmp_path: Path) -> None:
    pool = make_pool(tmp_path, label=np.zeros(3, int), log_odds=np.zeros(3))
    with pytest.raises(ValueError, match="weight_cap"):
        weigh_rows(pool, np.arange(3), "class_prior", cap=0.5)


@pytest.mark.parametrize("floor", [-0.1, 1.0, float("nan")])
def test_a_floor_outside_0_to_1_is_refused(floor: float) -> None:
    with pytest.raises(ValueError, match="weight_floor"):
        Choice(weight_floor=floor)


@given(st.integers(0, 5000), st.integers(1, 700), st.integers(0, 99))
def test_positions_are_a_stratified_sample(total: int, most: int, seed: int) -> None:
    positions = stratified_positions(total, most, seed)
    assert len(positions) == min(total, most)
    assert (np.diff(positions) > 0).all()
    assert ((positions >= 0) & (positions < total)).all()
    if total > most:
        strata = np.arange(most + 1) * total // most
        assert ((positions >= strata[:-1]) & (positions < strata[1:])).all()


def test_soft_prior_balances_the_softened_targets(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    label = generator.choice(3, 600, p=[0.6, 0.25, 0.15])
    logits = generator.normal(size=(600, 3)) + 4 * np.eye(3)[label]
    logits[label == 2] *= 0.5  # The teacher is less confident of this class.
    pool = make_pool(
        tmp_path,
        label=label,
        log_odds=np.zeros(600),
        blocks=(250, 350),
        matrices={"logits": logits},
        columns={"logsumexp": np.log(np.exp(logits).sum(1))},
    )
    rows = np.arange(3, 590)
    soft = np.exp(logits[rows] / TEMPERATURE)
    soft /= soft.sum(1, keepdims=True)
    before, weight = soft.mean(0), weigh_rows(pool, rows, "soft_prior").weight
    after = (soft * weight[:, None]).mean(0)
    assert np.abs(after - 1 / 3).max() < 0.1 * np.abs(before - 1 / 3).max()
    hard = weigh_rows(pool, rows, "class_prior").weight
    assert weight[label[rows] == 2].mean() > hard[label[rows] == 2].mean()


def test_soft_prior_with_many_classes_falls_back_to_class_prior_with_a_warning(
    tmp_path: Path,
) -> None:
    pool = pool_with_moments(tmp_path, n=90)
    rows = np.arange(80)
    weights = weigh_rows(pool, rows, "soft_prior", soft_prior_classes=2)
    np.testing.assert_array_equal(weights.weight, weigh_rows(pool, rows, "class_prior").weight)
    assert "class_prior" in weights.note["note"]
