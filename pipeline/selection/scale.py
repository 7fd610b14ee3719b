"""Scaling of columns with different units to one scale, before they are added."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.pool import Pool, chunks, sortable_code

Array = npt.NDArray[Any]
Norm = Literal["rank", "neg_log2_rank", "minmax", "max"]
CELL_BITS = 20  # ranks are exact to half of one of about 2^20 equal shares


class Scale:
    """A monotone map of one column, fitted to the candidates of a pool.

    The norm is one of these:

    - rank: the empirical distribution function in [0, 1]; equal values get their middle rank.
    - neg_log2_rank: -log2(1 - rank) >= 0, in bits. A value of b bits means that a share of 2^-b of
      the candidates is above.
    - minmax: the column scaled linearly to [0, 1].
    - max: the column divided by its largest magnitude, so that it is at most 1.

    Only candidates (reason 0) are used for the fit, so that duplicates have no influence. Memory
    does not grow with the pool: two scans count the values by their bits, first by the upper 16,
    then by as many more as are needed to split every share of more than 2^-CELL_BITS of the rows.
    Values in the same cell share a rank.

    Example: `Scale(pool, "log_odds", "rank")(pool.column("log_odds")[:100])`
    """

    def __init__(self, pool: Pool, name: str, norm: Norm) -> None:
        self.pool, self.name, self.norm = pool, name, norm
        if norm in ("rank", "neg_log2_rank"):
            self._count()
            return
        parts = [part for part in self._parts() if len(part)]
        self.low = min((float(part.min()) for part in parts), default=0.0)
        self.high = max((float(part.max()) for part in parts), default=0.0)
        self.magnitude = max(abs(self.low), abs(self.high), 1e-12)

    def _parts(self) -> Iterator[Array]:
        for rows in chunks(len(self.pool)):
            column = self.pool.column(self.name)[rows]
            yield column[self.pool.column("reason")[rows] == 0]

    def _count(self) -> None:
        coarse = np.zeros(1 << 16, np.int64)
        for part in self._parts():
            coarse += np.bincount(sortable_code(part) >> np.uint32(16), minlength=1 << 16)
        total = max(int(coarse.sum()), 1)
        bits = np.ceil(np.log2(np.maximum(coarse, 1) / total)) + CELL_BITS
        self.bits = np.where(coarse > 0, np.clip(bits, 0, 16), 0).astype(np.uint32)
        self.first = np.concatenate([[0], np.cumsum(1 << self.bits.astype(np.int64))[:-1]])
        counts = np.zeros(int(self.first[-1]) + (1 << int(self.bits[-1])), np.int64)
        for part in self._parts():
            np.add.at(counts, self._cell(part), np.int64(1))
        above = np.maximum(total - np.cumsum(counts) + counts / 2, 0.5) / total
        of_cell = 1 - above if self.norm == "rank" else -np.log2(above)
        self._of_cell = of_cell.astype(np.float32)

    def _cell(self, column: Array) -> npt.NDArray[np.int64]:
        code = sortable_code(np.asarray(column, np.float32))
        coarse = (code >> np.uint32(16)).astype(np.int64)
        fine = (code & np.uint32(0xFFFF)) >> (np.uint32(16) - self.bits[coarse])
        cell: npt.NDArray[np.int64] = self.first[coarse] + fine
        return cell

    def __call__(self, column: Array) -> npt.NDArray[np.float32]:
        """Return a column, or a part of it, on this scale: float32 [N], as the input."""
        if self.norm in ("rank", "neg_log2_rank"):
            scaled: npt.NDArray[np.float32] = self._of_cell[self._cell(column)]
            return scaled
        if self.norm == "minmax":
            span = max(self.high - self.low, 1e-12)
            return ((column - self.low) / span).astype(np.float32)
        return (column / self.magnitude).astype(np.float32)
