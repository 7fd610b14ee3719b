"""The centroids of inverted lists are the modes; rows join the nearest, and no list is empty."""

from __future__ import annotations

import numpy as np

from indexes.vectors.index import normalize_rows
from indexes.vectors.kmeans import nearest_centroid, nearest_centroids, train_centroids


def test_centroids_are_the_modes_and_no_list_is_empty() -> None:
    modes = normalize_rows(np.eye(4))
    rows = np.repeat(modes, [500, 5, 5, 5], axis=0)
    rows = normalize_rows(rows + np.random.default_rng(0).normal(scale=0.02, size=rows.shape))
    order = np.random.default_rng(1).permutation(len(rows))
    centroids = train_centroids(rows[order], 8, seed=0)
    assert centroids.shape == (8, 4)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(centroids, train_centroids(rows[order], 8, seed=0))
    row_ids, near = nearest_centroids(rows, centroids, 3)
    exact = (rows @ centroids.T).argmax(1)
    # bfloat16 breaks near ties differently.
    assert (nearest_centroid(rows, centroids) == exact).mean() > 0.5
    assert np.bincount(row_ids, minlength=len(rows)).max() <= 3
    assert set(near.tolist()) <= set(range(8))
