"""splitmix64: a hash of 64-bit numbers, the source of random views, orders and random scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Uint64 = npt.NDArray[np.uint64]

GAMMA = 0x9E3779B97F4A7C15


def splitmix64(x: Uint64) -> Uint64:
    """Apply one step of splitmix64 (Steele et al. 2014) to each element of an array [N].

    Example:
        >>> splitmix64(np.zeros(1, np.uint64))
        array([16294208416658607535], dtype=uint64)
    """
    x = x + np.uint64(GAMMA)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
