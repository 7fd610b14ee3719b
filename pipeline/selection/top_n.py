"""Scores to rows: the best N, globally or by class quotas, exact and out of core.

Memory grows neither with the pool's rows nor with N. Ties are broken by the key's hash, so the
result is a pure function of the columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.pool import Pool
from pipeline.selection import radix
from pipeline.selection.candidates import Buckets, Candidates, Grouping, sample_candidates

Array = npt.NDArray[Any]
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
    histogram: Array


def select_top_n(
    pool: Pool,
    n: int,
    balance: Balance,
    floor_log_odds: float,
    out: Path,
    *,
    by: str = "score",
) -> Selection:
    """Writes the rows to keep, ascending int64, to `out` (.npy): n, or all candidates if fewer.

    by: the column that ranks them, larger being better.
    quota_with_floor fills equal class quotas from rows with log-odds at or above the floor;
    if those are fewer than n the best of the rest follow (`below_floor` counts them).
    Raises ValueError for NaN scores.
    """
    wanted, below = len(pool) if balance == "all" else n, 0
    sampled = sample_candidates(pool, by)

    candidates = Candidates(pool, GROUPINGS[balance], floor_log_odds, by)
    buckets = Buckets(sampled, candidates.num_groups)
    table, dropped = radix.count(candidates, buckets)
    quotas = water_fill(table.sum(1), wanted)
    if balance == "quota_with_floor" and quotas.sum() < wanted:
        candidates = Candidates(pool, "side_of_floor", floor_log_odds, by)
        buckets = Buckets(sampled, candidates.num_groups)
        table, _ = radix.count(candidates, buckets)
        above, rest = table.sum(1).tolist()
        below = min(wanted - above, rest)
        quotas = np.array([above, below])
    box = radix.CutInterval(table, quotas, buckets)
    while box.num_open > radix.SORTED_ROWS:
        radix.narrow(candidates, box)
    kept = int(quotas.sum())
    histogram = radix.write(candidates, box, kept, out)
    dropped["not_selected"] = len(pool) - sum(dropped.values()) - kept
    return Selection(kept, dropped, below, histogram)


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


def starving(histogram: Array, classes: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """(class, images kept, how many it lacks of an even share) below half of that share.

    Fewest first, then in the order of the classes.
    """
    share = histogram.sum() / max(len(histogram), 1)
    for one in np.argsort(histogram, kind="stable"):
        if histogram[one] < share / 2:
            yield classes[one], int(histogram[one]), int(np.ceil(share)) - int(histogram[one])
