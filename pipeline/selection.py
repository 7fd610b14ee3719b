"""Scores to rows: exact duplicates out, then the best N, globally or by class quotas.

Out of core: columns [N] are memory-mapped and read in chunks; memory is that of the rows kept.
Ties are broken by the key's hash, so the result is a pure function of the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.pool import Pool, chunks

Array = npt.NDArray[Any]
Balance = Literal["global", "quota", "quota_with_floor", "all"]
BUCKET_ROWS = 1 << 24


@dataclass(frozen=True)
class Selected:
    """rows: ascending pool rows int64 [n]; dropped: why each of the others is not in."""

    rows: Array
    dropped: dict[str, int]
    below_floor: int


def duplicates(pool: Pool, bucket_rows: int = BUCKET_ROWS) -> Array:
    """bool [N], memory-mapped: True where an earlier row has the very same bytes.

    Hash buckets bound the memory: one bucket of about `bucket_rows` rows is sorted at a time.
    """
    total = len(pool)
    content = pool.column("content_hash")
    size = pool.column("size")
    zeros = ((block, {"duplicate": np.zeros(len(block), bool)}) for block in pool.blocks)
    pool.fill(zeros, dtype=bool)
    flags: Array = np.lib.format.open_memmap(pool.scratch / "duplicate.npy", mode="r+")
    buckets = np.uint64(-(-total // bucket_rows))
    for bucket in range(int(buckets)):
        parts = []
        for rows in chunks(total):
            mine = content[rows] % buckets == np.uint64(bucket)
            parts.append(np.flatnonzero(mine) + rows.start)
        chosen = np.concatenate(parts)
        order = np.lexsort((chosen, size[chosen], content[chosen]))
        ranked = chosen[order]
        same = (content[ranked][1:] == content[ranked][:-1]) & (
            size[ranked][1:] == size[ranked][:-1]
        )
        flags[ranked[1:][same]] = True
    flags.flush()  # type: ignore[attr-defined]
    return flags


def water_fill(counts: Sequence[int] | Array, total: int) -> Array:
    """Quotas int64 [C] with quota <= count that are as equal as possible and sum to `total`.

    Where the counts sum to less than `total` every quota is its count. Spare units of the last
    level go to the classes with the most rows, then the lowest index.
    """
    counts = np.asarray(counts, np.int64)
    if total >= counts.sum():
        return counts.copy()
    low, high = 0, int(counts.max(initial=0))
    while low < high:  # the highest level whose filling stays within the total
        level = (low + high + 1) // 2
        if np.minimum(counts, level).sum() <= total:
            low = level
        else:
            high = level - 1
    quotas = np.minimum(counts, low)
    spare = total - int(quotas.sum())
    open_ones = np.flatnonzero(counts > low)
    order = open_ones[np.lexsort((open_ones, -counts[open_ones]))]
    quotas[order[:spare]] += 1
    return quotas


def top_rows(
    total: int, quotas: Array, read: Callable[[slice], tuple[Array, Array, Array, Array]]
) -> Array:
    """The quota_g best rows of every group g, as ascending row numbers int64 [sum of taken].

    read(rows) -> (eligible bool, group int, score float32, tie uint64), each [n]. A group that
    is full lets through only rows at or above its worst kept score: one scan, exact.
    """
    kept = np.zeros(0, np.int64)
    group, tie = np.zeros(0, np.int64), np.zeros(0, np.uint64)
    score = np.zeros(0, np.float32)
    cut = np.full(len(quotas), -np.inf, np.float32)
    for rows in chunks(total):
        eligible, new_group, new_score, new_tie = read(rows)
        if np.isnan(new_score).any():
            raise ValueError("the method gave NaN scores: check its score function")
        fresh = np.flatnonzero(eligible & (new_score >= cut[new_group]))
        kept = np.concatenate([kept, fresh + rows.start])
        group = np.concatenate([group, new_group[fresh]])
        score = np.concatenate([score, new_score[fresh]])
        tie = np.concatenate([tie, new_tie[fresh]])
        order = np.lexsort((kept, tie, -score, group))
        starts = np.searchsorted(group[order], np.arange(len(quotas)))
        rank = np.arange(len(order)) - starts[group[order]]
        order = order[rank < quotas[group[order]]]
        kept, group, score, tie = kept[order], group[order], score[order], tie[order]
        full = np.bincount(group, minlength=len(quotas)) >= quotas
        worst = np.full(len(quotas), np.inf, np.float32)
        np.minimum.at(worst, group, score)
        cut = np.where(full, worst, -np.inf).astype(np.float32)
    return np.sort(kept)


def select(pool: Pool, n: int, balance: Balance, floor_log_odds: float) -> Selected:
    """The rows to keep: `n` of them, or every eligible one where there are fewer.

    quota_with_floor fills equal class quotas from rows with log-odds at or above the floor;
    if those are fewer than n the best of the rest follow (`below_floor` counts them).
    """
    duplicate, label = duplicates(pool), pool.column("label")
    log_odds, score = pool.column("log_odds"), pool.column("score")
    tie = pool.column("key_hash")
    num_classes = len(pool.classes)
    floor = floor_log_odds if balance == "quota_with_floor" else -np.inf

    def by_class(rows: slice) -> tuple[Array, Array, Array, Array]:
        eligible = ~duplicate[rows] & (log_odds[rows] >= floor)
        return eligible, label[rows], score[rows], tie[rows]

    def as_one(rows: slice) -> tuple[Array, Array, Array, Array]:
        eligible = ~duplicate[rows]
        return eligible, np.zeros(len(eligible), np.int64), score[rows], tie[rows]

    if balance == "all":
        rows = np.concatenate([np.flatnonzero(~duplicate[c]) + c.start for c in chunks(len(pool))])
        return Selected(rows, _dropped(pool, duplicate, rows), 0)
    if balance == "global":
        rows = top_rows(len(pool), np.array([n]), as_one)
        return Selected(rows, _dropped(pool, duplicate, rows), 0)
    counts = np.zeros(num_classes, np.int64)
    for piece in chunks(len(pool)):
        eligible, group, _, _ = by_class(piece)
        counts += np.bincount(group[eligible], minlength=num_classes)
    rows = top_rows(len(pool), water_fill(counts, n), by_class)
    short = n - len(rows)
    below = np.zeros(0, np.int64)
    if short > 0:

        def rest(piece: slice) -> tuple[Array, Array, Array, Array]:
            eligible, group, values, ties = as_one(piece)
            taken = rows[(rows >= piece.start) & (rows < piece.stop)]
            eligible[taken - piece.start] = False
            return eligible, group, values, ties

        below = top_rows(len(pool), np.array([short]), rest)
    rows = np.sort(np.concatenate([rows, below]))
    return Selected(rows, _dropped(pool, duplicate, rows), len(below))


def _dropped(pool: Pool, duplicate: Array, rows: Array) -> dict[str, int]:
    twins = sum(int(duplicate[piece].sum()) for piece in chunks(len(pool)))
    return {"duplicate_content": twins, "not_selected": len(pool) - twins - len(rows)}


def starving(histogram: Array, classes: Sequence[str]) -> Iterator[tuple[str, int]]:
    """(class, count) of the classes with less than half an even share, fewest first."""
    share = histogram.sum() / max(len(histogram), 1)
    for one in np.argsort(histogram, kind="stable"):
        if histogram[one] < share / 2:
            yield classes[one], int(histogram[one])
