"""Scores against slow loops, and the invariants that a ranking must have."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.vectors import unit
from pipeline.methods import dfnd, entropy_top, odsd, random
from pipeline.scores import density, normalise, outlier
from tests.pipeline.pools import make_pool


def test_outlier_distance_is_the_nearest_prototype_of_its_class() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(30, 5))
    label = generator.integers(0, 3, 30)
    prototypes = unit(generator.normal(size=(6, 5))).reshape(3, 2, 5)
    found = outlier.distance(features, label, prototypes)
    for row in range(30):
        cosines = [
            float(np.dot(features[row], one) / np.linalg.norm(features[row]))
            for one in prototypes[label[row]]
        ]
        assert found[row] == pytest.approx(1 - max(cosines), abs=1e-5)


def test_outlier_is_zero_on_the_prototype_and_scale_free() -> None:
    prototypes = np.eye(3, dtype=np.float32)[:, None, :]
    features = np.array([[5.0, 0, 0], [0, 0.1, 0], [0, 0, 0], [0, -1, 0]])
    found = outlier.distance(features, np.array([0, 1, 2, 1]), prototypes)
    np.testing.assert_allclose(found, [0, 0, 1, 2], atol=1e-6)


def test_kmeans_prototypes_find_the_modes(tmp_path: Path) -> None:
    directions = unit(np.array([[1, 1, 0, 0], [1, -1, 0, 0]]))
    rows = np.repeat(directions, 40, axis=0)
    rows = rows + np.random.default_rng(0).normal(scale=0.01, size=rows.shape)
    label = np.zeros(80, int)
    pool = make_pool(tmp_path, label=label, log_odds=np.zeros(80), features=rows)
    found = outlier.kmeans(pool, 2, seed=0)
    assert (found[0] @ directions.T).max(axis=0) == pytest.approx([1, 1], abs=1e-3)
    np.testing.assert_allclose(found[2, 0], outlier.classifier_rows(pool)[2, 0])


def test_density_kinds() -> None:
    counts = np.array([10, 5, 0])
    np.testing.assert_allclose(density.per_class("scarcity", counts), [0, 0.5, 1])
    np.testing.assert_allclose(density.per_class("population", counts), [1, 0.5, 0])
    np.testing.assert_allclose(density.per_class("none", counts), [0, 0, 0])
    compact = density.per_class("compactness", counts, np.array([0.1, 0.2, 0.0]))
    np.testing.assert_allclose(compact, [0.5, 0, 1])
    with pytest.raises(ValueError, match="mean outlier"):
        density.per_class("compactness", counts)


VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50)


@given(VALUES)
def test_scales_keep_order_and_range(values: list[float]) -> None:
    column = np.array(values, np.float32)
    for norm in ("rank", "minmax", "max"):
        scaled = normalise.Scale(column, norm, seed=0)(column)
        assert (np.diff(scaled[np.argsort(column, kind="stable")]) >= 0).all()
        assert scaled.max() <= 1 + 1e-6
    assert normalise.Scale(column, "rank", seed=0)(column).min() >= 0


def test_rank_from_a_sample_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    column = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    exact = normalise.Scale(column, "rank", seed=0)(column)
    monkeypatch.setattr(normalise, "SAMPLE", 5_000)
    sampled = normalise.Scale(column, "rank", seed=0)(column)
    assert np.abs(exact - sampled).max() < 0.05
    assert np.abs(exact - sampled).max() > 0


def test_methods_rank_as_they_say(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    log_odds = generator.normal(size=50).astype(np.float32)
    pool = make_pool(tmp_path, label=generator.integers(0, 3, 50), log_odds=log_odds)

    def scores(module: object, seed: int = 0, **settings: object) -> np.ndarray:
        config = module.Config(**settings)  # type: ignore[attr-defined]
        blocks = module.score(pool, config, seed)  # type: ignore[attr-defined]
        return np.concatenate([columns["score"] for _, columns in blocks])

    np.testing.assert_array_equal(scores(dfnd), log_odds)
    np.testing.assert_array_equal(scores(entropy_top), -log_odds)
    np.testing.assert_array_equal(scores(random, 5), scores(random, 5))
    assert (scores(random, 5) != scores(random, 6)).mean() > 0.9
    drawn = scores(random, 5)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    alone = scores(odsd, outlier_weight=0.0, density_weight=0.0)
    np.testing.assert_array_equal(np.argsort(alone), np.argsort(log_odds))
    farther = scores(odsd, density_weight=0.0)
    assert (np.argsort(farther) != np.argsort(log_odds)).any()


def test_threads_may_ask_for_the_same_column(tmp_path: Path) -> None:
    log_odds = np.arange(200_000, dtype=np.float32)
    pool = make_pool(tmp_path, label=np.zeros(200_000, int), log_odds=log_odds)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: pool.column("log_odds")[:].sum(), range(32)))
    assert set(found) == {log_odds.sum()}
