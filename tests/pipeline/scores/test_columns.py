"""The raw columns: every column that the data allow exists; comparisons use only candidates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from indexes.vectors.index import normalize_rows
from pipeline.pool import Pool
from pipeline.scores import columns
from pipeline.scores.bn_distance import bn_distance
from pipeline.scores.outlier import classifier_prototypes, outlier_distance
from tests.support.pools import make_pool

Array = npt.NDArray[Any]


def random_pool(directory: Path, **more: Any) -> Pool:
    generator = np.random.default_rng(0)
    label = generator.choice(3, 60, p=[0.6, 0.3, 0.1])
    log_odds = generator.normal(size=60)
    return make_pool(directory, label=label, log_odds=log_odds, blocks=(25, 35), **more)


def nearest(cosine: float = 0.5) -> Iterator[Array]:
    return (np.full((size, 2), cosine) for size in (25, 35))


def test_columns_without_batchnorm_or_tower(tmp_path: Path) -> None:
    pool = random_pool(tmp_path)
    columns.fill(pool, nearest())
    assert pool.scores == ["compactness", "energy", "knn_distance", "outlier", "scarcity"]
    assert set(pool.scores) < set(columns.COLUMNS)
    features = np.concatenate([block.matrix("features") for block in pool.blocks])
    expected = outlier_distance(features, pool.column("label"), classifier_prototypes(pool))
    np.testing.assert_allclose(pool.column("outlier"), expected, atol=1e-6)


def test_class_statistics_use_only_candidates(tmp_path: Path) -> None:
    reason = (np.arange(60) % 3 == 0).astype(np.uint8)
    pool = random_pool(tmp_path, reason=reason)
    columns.fill(pool, nearest())
    label, free = np.array(pool.column("label")), reason == 0
    counts = np.array([(label[free] == number).sum() for number in range(3)])
    np.testing.assert_array_equal(pool.class_counts(), counts)
    np.testing.assert_allclose(pool.column("scarcity"), 1 - counts[label] / counts.max())
    distance = np.array(pool.column("outlier"))
    means = np.array([distance[free & (label == number)].mean() for number in range(3)])
    np.testing.assert_allclose(
        pool.column("compactness"), 1 - means[label] / means.max(), atol=1e-6
    )


def test_bn_neighbor_and_name_columns_exist_where_possible(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    layers, tower = generator.random((60, 5)), normalize_rows(generator.normal(size=(60, 8)))
    pool = random_pool(tmp_path, matrices={"bn": layers, "tower": tower})
    columns.fill(pool, nearest(0.75), normalize_rows(generator.normal(size=(3, 8))))
    assert {"bn_distance", "knn_distance", "class_name"} < set(pool.scores)
    np.testing.assert_allclose(pool.column("knn_distance"), 0.25)
    expected = bn_distance(layers.astype(np.float16))
    np.testing.assert_allclose(pool.column("bn_distance"), expected, rtol=1e-5)
    assert np.abs(pool.column("class_name")).max() <= 1 + 1e-3


def test_a_method_may_not_take_the_name_of_a_raw_column(tmp_path: Path) -> None:
    pool = random_pool(tmp_path)
    columns.fill(pool, nearest())
    method_pool = Pool(
        pool.embeddings, pool.classifier, pool.classes, tmp_path / "own", raw=pool.scratch
    )
    for name in ("outlier", "label", "reason"):
        values = ((block, {name: np.zeros(len(block))}) for block in method_pool.blocks)
        with pytest.raises(ValueError, match="it is taken"):
            method_pool.fill(values)
