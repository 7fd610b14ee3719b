"""The exact selection of the best rows of each group, up to its quota, out of core.

The columns are scanned twice. The first scan counts the rows per group and score bucket and thereby
finds the bucket of each group's cut. The second scan writes the rows above the cut and sorts the
few rows in its bucket. If that bucket holds too many rows, mostly because of ties, further scans
narrow the interval of the cut, digit by digit over the bits of score, then key hash, then row. This
is a radix selection. G groups, K buckets.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from indexes import npy
from pipeline.pool import REASONS, Pool, sortable_code
from pipeline.selection.candidates import (
    MINUS_ZERO,
    RANKS,
    SIZES,
    Buckets,
    Candidates,
    Chunk,
    Rows,
    gather_column,
    score_of,
)

Scores = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint64]
LARGEST = np.uint64((1 << 64) - 1)


def count_buckets(candidates: Candidates, buckets: Buckets) -> tuple[Rows, dict[str, int]]:
    """Scan once: return the candidates per group and bucket, int64 [G, K], and drops by reason.

    Raises ValueError if the score of a candidate is NaN.
    """
    reasons = dict.fromkeys(REASONS[1:], 0)
    table = np.zeros(candidates.num_groups * buckets.num + 1, np.int64)
    recent = np.zeros(len(table), np.int32)  # half the size, so that more of it stays in the cache
    unit = np.int32(1)
    for number, chunk in enumerate(candidates):
        cell = chunk.group * np.int32(buckets.num)
        cell += buckets(chunk.score)
        cell *= chunk.free  # rows that are not candidates count in the first cell
        np.add.at(recent, cell.astype(np.int64), unit)
        if np.isnan(chunk.score.max()) and np.isnan(chunk.score[chunk.free]).any():
            raise ValueError("the method returned NaN scores: check its score function")
        for reason, name in enumerate(REASONS[1:], 1):
            reasons[name] += int(np.count_nonzero(chunk.reason == reason))
        if number % 64 == 63:
            table += recent
            recent[:] = 0
    table += recent
    return table[1:].reshape(candidates.num_groups, buckets.num), reasons


class CutInterval:
    """The interval of the cut of each group: low..high, inclusive, uint64 [RANKS, G].

    Rows above the interval are kept, and rows below it are not. Among the `count` rows inside, the
    `quota_left` best are kept. A rank is narrowed only once the ranks before it are a single value.
    """

    def __init__(self, table: Rows, quotas: Rows, buckets: Buckets) -> None:
        self.low = np.zeros((RANKS, len(quotas)), np.uint64)
        self.high = np.full((RANKS, len(quotas)), LARGEST)
        self.has_quota = quotas > 0
        self.quota_left, self.count = quotas.copy(), table.sum(1)
        groups = np.flatnonzero(self.unresolved)
        bucket = self._enter(groups, table[groups])
        self.low[0, groups], self.high[0, groups] = buckets.low[bucket], buckets.high[bucket]

    @property
    def unresolved(self) -> npt.NDArray[np.bool_]:
        """Whether the interval has rows that are kept and rows that are not, bool [G]."""
        unresolved: npt.NDArray[np.bool_] = self.has_quota & (self.quota_left < self.count)
        return unresolved

    @property
    def num_unresolved(self) -> int:
        """The number of rows in the unresolved intervals."""
        return int(self.count[self.unresolved].sum())

    def _enter(self, groups: Rows, table: Rows) -> Rows:
        """Return the bucket in which each group's quota ends, and narrow the counts to it."""
        best_first = table[:, ::-1].cumsum(1)
        steps = (best_first < self.quota_left[groups, None]).sum(1)
        bucket: Rows = table.shape[1] - 1 - steps
        each = np.arange(len(groups))
        self.count[groups] = table[each, bucket]
        self.quota_left[groups] -= best_first[each, steps] - table[each, bucket]
        return bucket

    @property
    def tied(self) -> npt.NDArray[np.bool_]:
        """Whether one score is left, so that key hash or row narrows the interval, bool [G]."""
        tied: npt.NDArray[np.bool_] = np.any((self.low[1:] > 0) | (self.high[1:] < LARGEST), axis=0)
        return tied

    def scores(self) -> tuple[Scores, Scores]:
        """Return (least, most) float32 [G], the lowest and highest score in the interval.

        A row with a score below `least` is not kept, and one above `most` is kept. A `least` of NaN
        keeps no row; a `most` of NaN keeps every row from `least` on.
        """
        nan = np.float32(np.nan)
        least = np.where(self.has_quota, score_of(self.low[0]), nan)
        high = self.high[0] - (self.high[0] == MINUS_ZERO)  # 0.0 <= -0.0, but its code is larger
        return least, np.where(self.unresolved | self.tied, score_of(high), nan)

    def digits(self, digit_bits: int) -> tuple[Rows, Codes]:
        """Return (rank, shift), each [G]: the rank to narrow next, and by which of its bits."""
        rank = np.argmax(self.low < self.high, axis=0)
        each = np.arange(len(rank))
        width = self.high[rank, each] - self.low[rank, each]
        shift = [max(0, int(values).bit_length() - digit_bits) for values in width]
        return rank, np.array(shift, np.uint64)

    def narrow(self, table: Rows, rank: Rows, shift: Codes) -> None:
        """Narrow each unresolved interval to the part that holds the cut, by counts [G, K]."""
        groups = np.flatnonzero(self.unresolved)
        digit = self._enter(groups, table[groups]).astype(np.uint64)
        rank, shift = rank[groups], shift[groups]
        low = self.low[rank, groups] + (digit << shift)
        last = low + ((np.uint64(1) << shift) - np.uint64(1))
        self.high[rank, groups] = np.minimum(last, self.high[rank, groups])
        self.low[rank, groups] = low


@dataclass(frozen=True)
class Split:
    """The rows of a chunk by position [n]: `kept`, and on the `boundary` in an unresolved interval.

    `group` is the group of each boundary row.
    """

    chunk: Chunk
    kept: Rows
    boundary: Rows
    group: npt.NDArray[np.int32]


def split_chunks(candidates: Candidates, cut: CutInterval) -> Iterator[Split]:
    """Scan once: split each chunk by the intervals."""
    least, most = cut.scores()
    lowest = np.fmin.reduce(least)  # NaN if no row at all is kept
    unresolved, any_tied = cut.unresolved, cut.tied.any()
    for chunk in candidates:
        good = chunk.score >= lowest  # most rows are below every group's cut
        good &= chunk.free
        local = np.flatnonzero(good)
        group, score = chunk.group[local], chunk.score[local]
        good = score >= least[group]
        local, group = local[good], group[good]
        at_cut = score[good] <= most[group]
        kept, boundary, group = local[~at_cut], local[at_cut], group[at_cut]
        if any_tied:  # the score alone does not determine which rows are in the interval
            inside, above = np.ones(len(boundary), bool), np.zeros(len(boundary), bool)
            for values, low, high in zip(chunk.ranks(boundary), cut.low, cut.high, strict=True):
                above |= inside & (values > high[group])
                inside &= (values >= low[group]) & (values <= high[group])
            above |= inside & ~unresolved[group]
            kept = np.sort(np.concatenate([kept, boundary[above]]))
            boundary, group = boundary[inside & ~above], group[inside & ~above]
        yield Split(chunk, kept, boundary, group)


def narrow(candidates: Candidates, cut: CutInterval) -> None:
    """Scan once more to make the unresolved intervals 2^digit_bits times smaller."""
    digit_bits = candidates.sizes.digit_bits
    rank, shift = cut.digits(digit_bits)
    table = np.zeros((candidates.num_groups, 1 << digit_bits), np.int64)
    for part in split_chunks(candidates, cut):
        ranks = rank[part.group]
        values = part.chunk.ranks(part.boundary)[ranks, np.arange(len(ranks))]
        digit = (values - cut.low[ranks, part.group]) >> shift[part.group]
        np.add.at(table, (part.group, digit.astype(np.int64)), 1)
    cut.narrow(table, rank, shift)


def write_rows(candidates: Candidates, cut: CutInterval, num_rows: int, out: Path) -> Rows:
    """Scan once more, write the kept rows to `out`, and return their class histogram int64 [C]."""
    pool, sizes = candidates.pool, candidates.sizes
    histogram = np.zeros(len(pool.classes), np.int64)
    boundaries: list[tuple[Rows, npt.NDArray[np.int32], Scores, npt.NDArray[np.int32]]] = []
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out.parent) as stream:
        for part in split_chunks(candidates, cut):
            chunk, boundary = part.chunk, part.boundary
            stream.write((part.kept + chunk.start).data)
            histogram += np.bincount(chunk.label[part.kept], minlength=len(histogram))
            columns = chunk.score[boundary], chunk.label[boundary]
            boundaries.append((boundary + chunk.start, part.group, *columns))
        rows, group, score, label = map(np.concatenate, zip(*boundaries, strict=True))
        chosen = best_of_groups(pool, cut.quota_left, rows, group, score, sizes.span_rows)
        histogram += np.bincount(label[chosen], minlength=len(histogram))
        stream.seek(0)
        with npy.writing(out, (num_rows,), np.int64) as writer:
            for merged in merge(stream, rows[chosen], sizes.merged_rows):
                writer.write(merged)
    assert histogram.sum() == num_rows
    return histogram


def best_of_groups(
    pool: Pool,
    quotas: Rows,
    rows: Rows,
    group: npt.NDArray[np.int32],
    score: Scores,
    span_rows: int = SIZES.span_rows,
) -> Rows:
    """Return the ascending positions of the best of M rows in each group, up to quotas [G].

    `rows`, `group` and `score` are [M]; rows ascend.
    """
    if not len(rows):
        return rows
    worse = (group.astype(np.uint64) << np.uint64(32)) | ~sortable_code(score)
    ordered = np.sort(worse)
    starts = np.searchsorted(ordered, np.arange(len(quotas), dtype=np.uint64) << np.uint64(32))
    cut = ordered[np.clip(starts + quotas - 1, 0, len(rows) - 1)][group]
    chosen = worse < cut
    tied = np.flatnonzero(worse == cut)  # only rows at the cut itself need their key hash
    tied_group = group[tied]
    key_hash = gather_column(pool, "key_hash", rows[tied], span_rows)
    left = quotas - np.bincount(group[chosen], minlength=len(quotas))
    order = np.lexsort((key_hash, tied_group))
    starts = np.searchsorted(tied_group[order], np.arange(len(quotas)))
    rank = np.arange(len(tied)) - starts[tied_group[order]]
    chosen[tied[order[rank < left[tied_group[order]]]]] = True
    return np.flatnonzero(chosen)


def merge(stream: BinaryIO, others: Rows, num_rows: int = SIZES.merged_rows) -> Iterator[Rows]:
    """Yield the sorted union of ascending rows [N] in a stream and ascending `others` [M]."""
    start = 0
    while data := stream.read(8 * num_rows):
        rows = np.frombuffer(data, np.int64)
        stop = int(np.searchsorted(others, rows[-1]))
        more = others[start:stop]
        yield np.insert(rows, np.searchsorted(rows, more), more)
        start = stop
    yield others[start:]
