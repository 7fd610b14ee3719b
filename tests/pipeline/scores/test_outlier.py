"""Outlier distance: the distance to the nearest prototype of the predicted class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexes.vectors.index import normalize_rows
from pipeline.scores.outlier import classifier_prototypes, kmeans_prototypes, outlier_distance
from tests.support.pools import make_pool


def test_outlier_distance_is_the_nearest_prototype_of_its_class() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(30, 5))
    label = generator.integers(0, 3, 30)
    prototypes = normalize_rows(generator.normal(size=(6, 5))).reshape(3, 2, 5)
    distance = outlier_distance(features, label, prototypes)
    for row in range(30):
        cosines = [
            float(np.dot(features[row], prototype) / np.linalg.norm(features[row]))
            for prototype in prototypes[label[row]]
        ]
        assert distance[row] == pytest.approx(1 - max(cosines), abs=1e-5)


def test_outlier_is_zero_on_the_prototype_and_ignores_scale() -> None:
    prototypes = np.eye(3, dtype=np.float32)[:, None, :]
    features = np.array([[5.0, 0, 0], [0, 0.1, 0], [0, 0, 0], [0, -1, 0]])
    distance = outlier_distance(features, np.array([0, 1, 2, 1]), prototypes)
    np.testing.assert_allclose(distance, [0, 0, 1, 2], atol=1e-6)


def test_kmeans_prototypes_find_the_modes(tmp_path: Path) -> None:
    directions = normalize_rows(np.array([[1, 1, 0, 0], [1, -1, 0, 0]]))
    rows = np.repeat(directions, 40, axis=0)
    rows = rows + np.random.default_rng(0).normal(scale=0.01, size=rows.shape)
    label = np.zeros(80, int)
    pool = make_pool(tmp_path, label=label, log_odds=np.zeros(80), features=rows)
    modes = kmeans_prototypes(pool, 2, seed=0)
    assert (modes[0] @ directions.T).max(axis=0) == pytest.approx([1, 1], abs=1e-3)
    np.testing.assert_allclose(modes[2, 0], classifier_prototypes(pool)[2, 0])
