"""Scores to rows: the best N, globally or by class quotas, exact and out of core.

Memory grows neither with the pool's rows nor with N. Ties are broken by the key's hash, so the
result is a pure function of the columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.pool import Pool
from pipeline.selection import radix
from pipeline.selection.candidates import (
    SIZES,
    Buckets,
    Candidates,
    Grouping,
    ScanSizes,
    sample_scores,
)

Counts = npt.NDArray[np.int64]
Balance = Literal["global", "quota", "quota_with_floor", "all"]
GROUPINGS: dict[Balance, Grouping] = {
    "global": "pool",
    "all": "pool",
    "quota": "class",
    "quota_with_floor": "class_above_floor",
}


@dataclass(frozen=True)
class Selection:
    """num_rows kept; dropped: why each other is not; histogram [C] of the kept by class."""

    num_rows: int
    dropped: dict[str, int]
    below_floor: int
    histogram: Counts


def select_top_n(
    pool: Pool,
    n: int,
    balance: Balance,
    floor_log_odds: float,
    out: Path,
    *,
    by: str = "score",
    sizes: ScanSizes = SIZES,
) -> Selection:
    """Writes the rows to keep, ascending int64, to `out` (.npy): n, or all candidates if fewer.

    by: the column that ranks them, larger being better.
    quota_with_floor fills equal class quotas from rows with log-odds at or above the floor;
    if those are fewer than n the best of the rest follow (`below_floor` counts them).
    Raises ValueError for NaN scores.

    Example:
        >>> selection = select_top_n(pool, 50_000, "quota", 0.0, Path("rows.npy"))
        >>> rows = np.load("rows.npy", allow_pickle=False)
    """
    wanted, below = len(pool) if balance == "all" else n, 0
    sampled = sample_scores(pool, by, sizes)

    candidates = Candidates(pool, GROUPINGS[balance], floor_log_odds, by, sizes)
    buckets = Buckets(sampled, candidates.num_groups, sizes)
    table, dropped = radix.count_buckets(candidates, buckets)
    quotas = water_fill(table.sum(1), wanted)
    if balance == "quota_with_floor" and quotas.sum() < wanted:
        candidates = Candidates(pool, "side_of_floor", floor_log_odds, by, sizes)
        buckets = Buckets(sampled, candidates.num_groups, sizes)
        table, _ = radix.count_buckets(candidates, buckets)
        above, rest = table.sum(1).tolist()
        below = min(wanted - above, rest)
        quotas = np.array([above, below])
    cut = radix.CutInterval(table, quotas, buckets)
    while cut.num_unresolved > sizes.sorted_rows:
        radix.narrow(candidates, cut)
    num_rows = int(quotas.sum())
    histogram = radix.write_rows(candidates, cut, num_rows, out)
    dropped["not_selected"] = len(pool) - sum(dropped.values()) - num_rows
    return Selection(num_rows, dropped, below, histogram)


def water_fill(counts: Sequence[int] | Counts, total: int) -> Counts:
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
    not_full = np.flatnonzero(counts > low)
    order = not_full[np.lexsort((not_full, -counts[not_full]))]
    quotas[order[:spare]] += 1
    return quotas


def starving(histogram: Counts, classes: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """(class, images kept, how many it lacks of an even share) below half of that share.

    Fewest first, then in the order of the classes.
    """
    share = histogram.sum() / max(len(histogram), 1)
    for label in np.argsort(histogram, kind="stable"):
        if histogram[label] < share / 2:
            lacking = int(np.ceil(share)) - int(histogram[label])
            yield classes[label], int(histogram[label]), lacking
