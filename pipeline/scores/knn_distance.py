"""Local density: how far the k-th nearest neighbor of an image lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

K = 10
"""Which neighbor: enough that a few copies of an image do not make its surroundings crowded."""


def knn_distance(similarity_NK: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """1 - cosine to the K-th neighbor, float32 [N], in [0, 2]; small where it is crowded (OURS).

    similarity_NK: cosines to the K nearest others, best first. Where an index found fewer (a
    similarity of NaN or below -1) the distance is 2.
    """
    last = np.nan_to_num(similarity_NK[:, -1].astype(np.float32), nan=-1.0)
    return (np.float32(1) - np.clip(last, -1, 1)).astype(np.float32)
