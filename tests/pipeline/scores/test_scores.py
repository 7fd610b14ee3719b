"""Scores against slow loops, and the invariants that a ranking must have."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes.vectors.index import normalize_rows
from pipeline.scores import bn_distance, class_name, density, energy, knn_distance, outlier
from pipeline.selection.scale import Norm, Scale
from tests.support.columns import pool_of
from tests.support.pools import make_pool


def test_outlier_distance_is_the_nearest_prototype_of_its_class() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(30, 5))
    label = generator.integers(0, 3, 30)
    prototypes = normalize_rows(generator.normal(size=(6, 5))).reshape(3, 2, 5)
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
    directions = normalize_rows(np.array([[1, 1, 0, 0], [1, -1, 0, 0]]))
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


def test_energy_is_the_logsumexp() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 4)) * 3
    expected = [np.log(sum(np.exp(one) for one in row)) for row in logits]
    found = energy.energy(np.log(np.exp(logits).sum(1)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32


def test_local_distance_is_that_of_the_last_neighbor() -> None:
    similarity = np.array(
        [[1.0, 0.9], [0.5, -1.0], [0.3, np.nan], [1.0, -3.4e38], [1.0, 1.0000001]]
    )
    np.testing.assert_allclose(knn_distance.distance(similarity), [0.1, 2, 2, 2, 0], atol=1e-6)


def test_batchnorm_distance_ignores_the_scale_of_a_layer() -> None:
    layers = np.random.default_rng(0).random((20, 10)) + 0.1
    found = bn_distance.distance(layers)
    slow = [sum(np.log(one) for one in row[1:7]) / 6 for row in layers]
    np.testing.assert_allclose(found, slow, rtol=1e-5, atol=1e-6)
    scaled = bn_distance.distance(layers * [7, 1, 1000, 1, 1, 1, 1, 7, 7, 7])
    np.testing.assert_allclose(scaled - found, np.log(1000) / 6, rtol=1e-4)
    for few in (1, 2, 3):
        assert np.isfinite(bn_distance.distance(np.zeros((2, few), np.float16))).all()


def test_class_name_similarity_is_a_cosine_with_the_predicted_name() -> None:
    generator = np.random.default_rng(0)
    images, names = (
        normalize_rows(generator.normal(size=(9, 6))),
        normalize_rows(generator.normal(size=(3, 6))),
    )
    label = generator.integers(0, 3, 9)
    slow = [float(np.dot(images[row], names[label[row]])) for row in range(9)]
    np.testing.assert_allclose(class_name.similarity(images, names, label), slow, atol=1e-6)


VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50)


@settings(deadline=None, max_examples=30)
@given(VALUES)
def test_scales_keep_order_and_range(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    column = np.array(values, np.float32)
    pool = pool_of(tmp_path_factory.mktemp("pool"), 1, score=column, reason=0 * column)
    for norm in NORMS:
        scaled = Scale(pool, "score", norm)(column)
        assert (np.diff(scaled[np.argsort(column, kind="stable")]) >= 0).all()
        most = np.log2(2 * len(column)) if norm == "neg_log2_rank" else 1
        assert scaled.max() <= most + 1e-6
    ranks = Scale(pool, "score", "rank")(column)
    slow = [((column < one).sum() + (column <= one).sum()) / 2 / len(column) for one in column]
    np.testing.assert_allclose(ranks, slow, atol=1e-6)
    halvings = Scale(pool, "score", "neg_log2_rank")(column)
    np.testing.assert_allclose(halvings, -np.log2(1 - np.array(slow)), rtol=1e-5, atol=1e-6)


NORMS: tuple[Norm, ...] = ("rank", "neg_log2_rank", "minmax", "max")


@pytest.mark.parametrize("kind", ["normal", "atoms", "constant", "heavy"])
def test_rank_of_many_rows_is_exact_to_a_cell(tmp_path: Path, kind: str) -> None:
    generator = np.random.default_rng(0)
    column = generator.normal(size=300_000).astype(np.float32)
    if kind == "atoms":
        column = np.maximum(column, 0).round(2)
    elif kind == "constant":
        column[:] = 3
    elif kind == "heavy":
        column = np.exp(15 * column)
    pool = pool_of(tmp_path, 1, score=column, reason=np.zeros(len(column)))
    ordered = np.sort(column)
    below, upto = (np.searchsorted(ordered, column, side) for side in ("left", "right"))
    expected = (below + upto) / (2 * len(column))
    found = Scale(pool, "score", "rank")(column)
    assert np.abs(found - expected).max() < 2e-5
    halvings = Scale(pool, "score", "neg_log2_rank")(column)
    assert np.abs(2.0**-halvings - (1 - expected)).max() < 2e-5


@pytest.mark.parametrize("norm", NORMS)
def test_scales_are_fitted_to_candidates(tmp_path: Path, norm: Norm) -> None:
    column = np.arange(100, dtype=np.float32)
    reason = (column >= 50).astype(np.uint8)
    pool = pool_of(tmp_path / "a", 1, score=column, reason=reason)
    alone = pool_of(tmp_path / "b", 1, score=column[:50], reason=reason[:50])
    np.testing.assert_array_equal(
        Scale(pool, "score", norm)(column[:50]),
        Scale(alone, "score", norm)(column[:50]),
    )


def test_threads_may_ask_for_the_same_column(tmp_path: Path) -> None:
    log_odds = np.arange(200_000, dtype=np.float32)
    pool = make_pool(tmp_path, label=np.zeros(200_000, int), log_odds=log_odds)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: pool.column("log_odds")[:].sum(), range(32)))
    assert set(found) == {log_odds.sum()}
