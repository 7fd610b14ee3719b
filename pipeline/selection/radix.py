"""The exact cut, out of core: which rows are the `quota` best of their group.

Two scans of the columns. The first counts rows per group and score bucket, which says where each
group's cut lies. The second writes the rows above the cut and sorts the few in its bucket. Where
those are too many (ties above all), scans in between narrow the cut, digit by digit over the bits
of score, then key hash, then row: a radix selection. G groups, K buckets.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from indexes import npy
from pipeline.pool import REASONS, Pool, sortable_code
from pipeline.selection.candidates import (
    MINUS_ZERO,
    RANKS,
    Buckets,
    Candidates,
    Chunk,
    gather_candidates,
    score_of,
)

Array = npt.NDArray[Any]
SORTED_ROWS = 1 << 20  # rows in the boxes of the cuts that are sorted in memory
MERGED_ROWS = 1 << 20  # rows that are written at a time
DIGIT_BITS = 8
LARGEST = np.uint64((1 << 64) - 1)


def count(candidates: Candidates, buckets: Buckets) -> tuple[Array, dict[str, int]]:
    """The first scan: candidates per group and bucket, int64 [G, K]; other rows by reason.

    Raises ValueError for NaN scores.
    """
    reasons = dict.fromkeys(REASONS[1:], 0)
    table = np.zeros(candidates.num_groups * buckets.num + 1, np.int64)
    recent = np.zeros(len(table), np.int32)  # half the size: more of it stays in the cache
    one = np.int32(1)
    for number, chunk in enumerate(candidates):
        cell = chunk.group * np.int32(buckets.num)
        cell += buckets(chunk.score)
        cell *= chunk.free  # rows that are no candidates are counted in the first cell
        np.add.at(recent, cell.astype(np.int64), one)
        if np.isnan(chunk.score.max()) and np.isnan(chunk.score[chunk.free]).any():
            raise ValueError("the method gave NaN scores: check its score function")
        for reason, name in enumerate(REASONS[1:], 1):
            reasons[name] += int(np.count_nonzero(chunk.reason == reason))
        if number % 64 == 63:
            table += recent
            recent[:] = 0
    table += recent
    return table[1:].reshape(candidates.num_groups, buckets.num), reasons


class CutInterval:
    """Where the cut of each group lies: low..high (inclusive, uint64 [RANKS, G]) of each rank.

    A row above the box is kept, one below is not; of the `inside` rows in it the `need` best are.
    A rank is narrowed only when those before it are down to one value.
    """

    def __init__(self, table: Array, quotas: Array, buckets: Buckets) -> None:
        self.low = np.zeros((RANKS, len(quotas)), np.uint64)
        self.high = np.full((RANKS, len(quotas)), LARGEST)
        self.wanted = quotas > 0
        self.need, self.inside = quotas.copy(), table.sum(1)
        groups = np.flatnonzero(self.open)
        bucket = self._enter(groups, table[groups])
        self.low[0, groups], self.high[0, groups] = buckets.low[bucket], buckets.high[bucket]

    @property
    def open(self) -> Array:
        """bool [G]: some of the rows in the box are kept, and some are not."""
        some: Array = self.wanted & (self.need < self.inside)
        return some

    @property
    def num_open(self) -> int:
        """Rows in the open boxes."""
        return int(self.inside[self.open].sum())

    def _enter(self, groups: Array, table: Array) -> Array:
        """The bucket of each group where its need is met; need and inside become the bucket's."""
        best_first = table[:, ::-1].cumsum(1)
        place = (best_first < self.need[groups, None]).sum(1)
        bucket: Array = table.shape[1] - 1 - place
        each = np.arange(len(groups))
        self.inside[groups] = table[each, bucket]
        self.need[groups] -= best_first[each, place] - table[each, bucket]
        return bucket

    @property
    def deep(self) -> Array:
        """bool [G]: narrowed beyond the score."""
        deep: Array = np.any((self.low[1:] > 0) | (self.high[1:] < LARGEST), axis=0)
        return deep

    def scores(self) -> tuple[Array, Array]:
        """(least, most) float32 [G]: a lower score than the least is not enough to be kept, a
        higher one than the most is. NaN: no row is kept; every row from the least on is.
        """
        nan = np.float32(np.nan)
        least = np.where(self.wanted, score_of(self.low[0]), nan)
        high = self.high[0] - (self.high[0] == MINUS_ZERO)  # 0.0 <= -0.0, but its code is above
        return least, np.where(self.open | self.deep, score_of(high), nan)

    def digits(self) -> tuple[Array, Array]:
        """(rank, shift) [G] each: which rank is narrowed next, and by which of its bits."""
        rank = np.argmax(self.low < self.high, axis=0)
        each = np.arange(len(rank))
        width = self.high[rank, each] - self.low[rank, each]
        shift = [max(0, int(one).bit_length() - DIGIT_BITS) for one in width]
        return rank, np.array(shift, np.uint64)

    def narrow(self, table: Array, rank: Array, shift: Array) -> None:
        """Each open box becomes the part of it where the cut lies, by counts [G, 2^DIGIT_BITS]."""
        groups = np.flatnonzero(self.open)
        digit = self._enter(groups, table[groups]).astype(np.uint64)
        rank, shift = rank[groups], shift[groups]
        low = self.low[rank, groups] + (digit << shift)
        last = low + ((np.uint64(1) << shift) - np.uint64(1))
        self.high[rank, groups] = np.minimum(last, self.high[rank, groups])
        self.low[rank, groups] = low


@dataclass(frozen=True)
class Split:
    """Of a chunk: local rows kept for sure; local rows in the open boxes, and their group."""

    chunk: Chunk
    kept: Array
    edge: Array
    group: Array


def split(candidates: Candidates, box: CutInterval) -> Iterator[Split]:
    """One scan: each chunk against the boxes."""
    least, most = box.scores()
    lowest = np.fmin.reduce(least)  # NaN where no row at all is kept
    is_open, any_deep = box.open, box.deep.any()
    for chunk in candidates:
        good = chunk.score >= lowest  # most rows are below every group's cut
        good &= chunk.free
        local = np.flatnonzero(good)
        group, score = chunk.group[local], chunk.score[local]
        good = score >= least[group]
        local, group = local[good], group[good]
        at_cut = score[good] <= most[group]
        kept, edge, group = local[~at_cut], local[at_cut], group[at_cut]
        if any_deep:  # the score alone does not say who is inside
            inside, above = np.ones(len(edge), bool), np.zeros(len(edge), bool)
            for values, low, high in zip(chunk.ranks(edge), box.low, box.high, strict=True):
                above |= inside & (values > high[group])
                inside &= (values >= low[group]) & (values <= high[group])
            above |= inside & ~is_open[group]
            kept = np.sort(np.concatenate([kept, edge[above]]))
            edge, group = edge[inside & ~above], group[inside & ~above]
        yield Split(chunk, kept, edge, group)


def narrow(candidates: Candidates, box: CutInterval) -> None:
    """One more scan, after which the open boxes are 2^DIGIT_BITS times smaller."""
    rank, shift = box.digits()
    table = np.zeros((candidates.num_groups, 1 << DIGIT_BITS), np.int64)
    for one in split(candidates, box):
        mine = rank[one.group]
        values = one.chunk.ranks(one.edge)[mine, np.arange(len(mine))]
        digit = (values - box.low[mine, one.group]) >> shift[one.group]
        np.add.at(table, (one.group, digit.astype(np.int64)), 1)
    box.narrow(table, rank, shift)


def write(candidates: Candidates, box: CutInterval, num_rows: int, out: Path) -> Array:
    """The last scan: writes the rows kept to `out`; returns their class histogram int64 [C]."""
    pool = candidates.pool
    histogram = np.zeros(len(pool.classes), np.int64)
    edges: list[tuple[Array, Array, Array, Array]] = []
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out.parent) as stream:
        for one in split(candidates, box):
            chunk, edge = one.chunk, one.edge
            stream.write((one.kept + chunk.start).data)
            histogram += np.bincount(chunk.label[one.kept], minlength=len(histogram))
            edges.append((edge + chunk.start, one.group, chunk.score[edge], chunk.label[edge]))
        rows, group, score, label = map(np.concatenate, zip(*edges, strict=True))
        chosen = resolve(pool, box.need, rows, group, score)
        histogram += np.bincount(label[chosen], minlength=len(histogram))
        stream.seek(0)
        with npy.writing(out, (num_rows,), np.int64) as writer:
            for merged in merge(stream, rows[chosen]):
                writer.write(merged)
    assert histogram.sum() == num_rows
    return histogram


def resolve(pool: Pool, need: Array, rows: Array, group: Array, score: Array) -> Array:
    """Which of m rows (ascending) are the `need` [G] best of their group: places, ascending."""
    if not len(rows):
        return rows
    worse = (group.astype(np.uint64) << np.uint64(32)) | ~sortable_code(score)
    ordered = np.sort(worse)
    starts = np.searchsorted(ordered, np.arange(len(need), dtype=np.uint64) << np.uint64(32))
    cut = ordered[np.clip(starts + need - 1, 0, len(rows) - 1)][group]
    chosen = worse < cut
    tied = np.flatnonzero(worse == cut)  # only those at the cut itself need their key hashes
    owner, ties = group[tied], gather_candidates(pool, "key_hash", rows[tied])
    left = need - np.bincount(group[chosen], minlength=len(need))
    order = np.lexsort((ties, owner))
    starts = np.searchsorted(owner[order], np.arange(len(need)))
    place = np.arange(len(tied)) - starts[owner[order]]
    chosen[tied[order[place < left[owner[order]]]]] = True
    return np.flatnonzero(chosen)


def merge(stream: BinaryIO, others: Array) -> Iterator[Array]:
    """Chunks of the union, ascending, of ascending rows in a stream and ascending `others`."""
    taken = 0
    while data := stream.read(8 * MERGED_ROWS):
        rows = np.frombuffer(data, np.int64)
        upto = int(np.searchsorted(others, rows[-1]))
        more = others[taken:upto]
        yield np.insert(rows, np.searchsorted(rows, more), more)
        taken = upto
    yield others[taken:]
