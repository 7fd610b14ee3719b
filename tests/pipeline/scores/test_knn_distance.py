"""KNN distance: the distance to the farthest of the K neighbors."""

from __future__ import annotations

import numpy as np

from pipeline.scores.knn_distance import knn_distance


def test_knn_distance_is_the_distance_to_the_last_neighbor() -> None:
    similarity = np.array(
        [[1.0, 0.9], [0.5, -1.0], [0.3, np.nan], [1.0, -3.4e38], [1.0, 1.0000001]]
    )
    np.testing.assert_allclose(knn_distance(similarity), [0.1, 2, 2, 2, 0], atol=1e-6)
