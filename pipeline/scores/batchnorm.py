"""BatchNorm score: how far an image's statistics lie from those of the lost data."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
LEAST = 1e-6


def distance(bn_NL: Array) -> Array:
    """Mean over the L layers of the log of their distances, float32 [n]; small is near (OURS).

    Logarithms, because the layers' distances differ in scale: a factor of a whole layer then
    moves every image alike. bn_NL: pipeline/fingerprint.py.
    """
    logs = np.log(np.maximum(bn_NL.astype(np.float32), np.float32(LEAST)))
    mean: Array = logs.mean(axis=1, dtype=np.float32)
    return mean
