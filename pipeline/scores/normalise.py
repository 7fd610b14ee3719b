"""Putting columns of different units on one scale before they are added."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.pool import chunks

Array = npt.NDArray[Any]
Norm = Literal["rank", "minmax", "max"]
SAMPLE = 1 << 22


class Scale:
    """A fitted, monotone map of one column to [0, 1] (rank, minmax) or to <= 1 (max).

    rank is the empirical distribution function of the column: exact up to 4 M rows, from a seeded
    sample of that size above, so that memory does not grow with N.
    """

    def __init__(self, column_N: Array, norm: Norm, seed: int) -> None:
        self.norm = norm
        total = len(column_N)
        if norm == "rank":
            if total > SAMPLE:
                rows = np.sort(np.random.default_rng(seed).integers(0, total, SAMPLE))
                self.sorted = np.sort(column_N[rows])
            else:
                self.sorted = np.sort(column_N)
            return
        parts = [column_N[rows] for rows in chunks(total)]
        self.low = min(float(part.min()) for part in parts)
        self.high = max(float(part.max()) for part in parts)
        self.magnitude = max(abs(self.low), abs(self.high), 1e-12)

    def __call__(self, column: Array) -> Array:
        """float32, same shape."""
        if self.norm == "rank":
            below = np.searchsorted(self.sorted, column, "left")
            upto = np.searchsorted(self.sorted, column, "right")
            return ((below + upto) / (2.0 * len(self.sorted))).astype(np.float32)
        if self.norm == "minmax":
            span = max(self.high - self.low, 1e-12)
            return ((column - self.low) / span).astype(np.float32)
        return (column / self.magnitude).astype(np.float32)
