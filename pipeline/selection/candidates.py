"""The candidates of a pool, read in chunks, in groups of rows that compete for a quota."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.pool import Pool, chunks, sortable_code

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]
Grouping = Literal["pool", "class", "class_above_floor", "side_of_floor"]

MINUS_ZERO = np.uint64((1 << 31) - 1)  # the code that -0.0 would have; no score has it
RANKS = 3  # rows of a group are ranked by score, then key hash, then row; larger ranks are better


@dataclass(frozen=True, kw_only=True)
class ScanSizes:
    """The sizes of the pieces in which a pool is scanned.

    They affect memory and speed, but never the outcome.
    """

    mapped_rows: int = 1 << 24
    """A pool of up to this many rows stays mapped between scans (350 MB)."""
    span_rows: int = 1 << 22
    """Rows of a larger pool that are mapped at a time."""
    chunk_rows: int = 1 << 17
    """Rows processed at a time, so that their columns stay in the CPU's cache."""
    table_cells: int = 1 << 17
    """Cells (groups x buckets) of a table of counts, unless there are very many groups."""
    min_buckets: int = 64
    max_buckets: int = 4096
    sample_stripes: int = 512
    """Stripes of `stripe_rows` rows whose scores determine the limits of the buckets."""
    stripe_rows: int = 256
    digit_bits: int = 8
    """Bits of score, key hash or row by which one scan narrows an interval."""
    sorted_rows: int = 1 << 20
    """The most rows, within the intervals of all groups, that are sorted in memory."""
    merged_rows: int = 1 << 20
    """Rows written at a time."""


SIZES = ScanSizes()


@dataclass(frozen=True)
class Chunk:
    """n rows of the pool from row `start` on, as columns [n].

    `group` is the group in which a row competes; `free` marks the rows that do compete.
    """

    start: int
    reason: npt.NDArray[np.uint8]
    label: npt.NDArray[np.int32]
    score: npt.NDArray[np.float32]
    key_hash: npt.NDArray[np.uint64]
    group: npt.NDArray[np.int32]
    free: npt.NDArray[np.bool_]

    def ranks(self, local: Rows) -> npt.NDArray[np.uint64]:
        """Return the ranks uint64 [RANKS, M] of M rows at positions [M] in the chunk."""
        ranks = np.empty((RANKS, len(local)), np.uint64)
        ranks[0] = sortable_code(self.score[local])
        ranks[1] = ~self.key_hash[local]
        ranks[2] = ~(local + self.start).astype(np.uint64)
        return ranks


class Candidates:
    """Iterates over the pool in chunks, in G groups whose rows compete for the group's quota.

    `grouping` is one of: pool, a single group; class, one group per predicted class;
    class_above_floor, the same without the rows whose log-odds are below the floor; side_of_floor,
    two groups, the rows at or above the floor and the others. Rows with a drop reason do not
    compete. `by` is the column that ranks the rows.
    """

    def __init__(
        self,
        pool: Pool,
        grouping: Grouping,
        floor_log_odds: float = 0.0,
        by: str = "score",
        sizes: ScanSizes = SIZES,
    ) -> None:
        self.pool, self.grouping, self.floor = pool, grouping, np.float32(floor_log_odds)
        self.by, self.sizes = by, sizes
        num_groups = {"pool": 1, "side_of_floor": 2}
        self.num_groups = num_groups.get(grouping, len(pool.classes))
        self._span, self._mapped = slice(0), list[Array]()

    def _columns(self, span: slice) -> list[Array]:
        # Mapping anew for every span releases the memory of the previous span.
        if span != self._span:
            names = ["reason", "label", self.by, "key_hash"]
            if self.grouping in ("class_above_floor", "side_of_floor"):
                names.append("log_odds")
            self._mapped = []
            self._mapped = [np.asarray(self.pool.column(name)[span]) for name in names]
            self._span = span
        return self._mapped

    def __iter__(self) -> Iterator[Chunk]:
        total, sizes = len(self.pool), self.sizes
        for span in chunks(total, total if total <= sizes.mapped_rows else sizes.span_rows):
            for piece in chunks(span.stop - span.start, sizes.chunk_rows):
                columns = (column[piece] for column in self._columns(span))
                reason, label, score, key_hash, *log_odds = columns
                free, group = reason == 0, label
                if self.grouping == "pool":
                    group = np.zeros(len(label), np.int32)
                elif self.grouping == "class_above_floor":
                    free &= log_odds[0] >= self.floor
                elif self.grouping == "side_of_floor":
                    group = (log_odds[0] < self.floor).astype(np.int32)
                start = span.start + piece.start
                yield Chunk(start, reason, label, score, key_hash, group, free)


def score_of(code: npt.NDArray[np.uint64]) -> npt.NDArray[np.float32]:
    """Return the scores float32 [N] of codes uint64 [N]; codes beyond infinity give infinity.

    This is the inverse of `pipeline.pool.sortable_code`.

    Example:
        >>> score_of(sortable_code(np.array([1.5], np.float32)).astype(np.uint64)).tolist()
        [1.5]
    """
    infinities = sortable_code(np.array([-np.inf, np.inf], np.float32))
    bounded = np.clip(code, *infinities).astype(np.uint32)
    sign = (bounded.view(np.int32) >> 31).view(np.uint32)
    score: npt.NDArray[np.float32] = (bounded ^ (~sign | np.uint32(1 << 31))).view(np.float32)
    return score


def gather_column(pool: Pool, name: str, rows: Rows, span_rows: int = SIZES.span_rows) -> Array:
    """Return the values [M] of a column at ascending rows [M], mapped span by span."""
    spans = list(chunks(len(pool), span_rows))
    bounds = np.searchsorted(rows, [span.start for span in spans] + [len(pool)])
    pieces = [rows[low:high] for low, high in itertools.pairwise(bounds) if high > low]
    return np.concatenate([pool.column(name)[piece] for piece in pieces])


def sample_scores(
    pool: Pool, by: str = "score", sizes: ScanSizes = SIZES
) -> npt.NDArray[np.float32]:
    """Return a sample of scores [M], in stripes over the whole pool, for the limits of buckets."""
    total, stripe_rows = len(pool), sizes.stripe_rows
    if total <= sizes.sample_stripes * stripe_rows:
        return np.array(pool.column(by))
    starts = np.linspace(0, total - stripe_rows, sizes.sample_stripes, dtype=np.int64)
    rows = (starts[:, None] + np.arange(stripe_rows)).ravel()
    return gather_column(pool, by, rows, sizes.span_rows)


class Buckets:
    """A monotone map of scores to K buckets of about the same number of rows, by their upper bits.

    The map uses the upper 16 bits and is fitted to a sample [M]. Any monotone map leads to the
    exact result; a well-fitted map leaves few rows in the bucket of the cut. Bucket k holds the
    codes low[k]..high[k], inclusive, uint64 [K].
    """

    def __init__(
        self, sampled: npt.NDArray[np.float32], num_groups: int, sizes: ScanSizes = SIZES
    ) -> None:
        num_buckets = sizes.table_cells // num_groups
        self.num = int(np.clip(num_buckets, sizes.min_buckets, sizes.max_buckets))
        prefix = sortable_code(sampled) >> np.uint32(16)
        num_below = np.cumsum(np.bincount(prefix, minlength=1 << 16))
        bucket = np.maximum(num_below - 1, 0) * self.num // max(len(sampled), 1)
        bucket[0x7FFF] = bucket[0x8000]  # -0.0 and 0.0 share a bucket
        first = np.searchsorted(bucket, np.arange(self.num + 1)).astype(np.uint64)
        self.low = first[:-1] << np.uint64(16)
        self.high = np.maximum(first[1:] << np.uint64(16), 1) - np.uint64(1)
        bits = np.arange(1 << 16)
        self._of_bits = bucket[bits ^ np.where(bits >> 15, 0xFFFF, 0x8000)].astype(np.uint16) + 1

    def __call__(self, score: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
        """Return buckets uint16 [N], from 1 on, of contiguous little-endian float32 scores [N]."""
        bucket: npt.NDArray[np.uint16] = self._of_bits.take(score.view(np.uint16)[1::2])
        return bucket
