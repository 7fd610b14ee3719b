"""The local density around an image: the distance to its K-th nearest neighbor."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

K = 10
"""The neighbor that counts. It is large enough that a few copies of an image do not matter."""


def knn_distance(similarity_NK: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """Return 1 - cosine to the K-th neighbor, float32 [N] in [0, 2]; small in dense regions (OURS).

    similarity_NK: cosines [N, K] to the K nearest other images, best first. If the index found
    fewer neighbors (a similarity of NaN or below -1), the distance is 2.

    Example:
        >>> knn_distance(np.array([[0.75, 0.5], [0.75, np.nan]])).tolist()
        [0.5, 2.0]
    """
    last = np.nan_to_num(similarity_NK[:, -1].astype(np.float32), nan=-1.0)
    return (np.float32(1) - np.clip(last, -1, 1)).astype(np.float32)
