"""Selection of the best N rows, globally or by class quotas, exact and out of core.

Memory grows neither with the rows of the pool nor with N. Ties are broken by the hash of the key,
so that the result is a pure function of the columns.
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
    """The outcome: the number of kept rows, the drops by reason, and kept rows per class [C].

    `below_floor` counts the kept rows whose log-odds are below the floor.
    """

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
    """Write the rows to keep, ascending int64 [n], to `out` (.npy).

    If there are fewer than n candidates, all are kept. `by` is the column that ranks the rows;
    larger is better. quota_with_floor fills equal class quotas from the rows with log-odds at or
    above the floor. If these are fewer than n, the best of the other rows follow, and `below_floor`
    counts them. Raises ValueError for NaN scores.

    Example::

        selection = select_top_n(pool, 50_000, "quota", 0.0, Path("rows.npy"))
        rows = np.load("rows.npy", allow_pickle=False)
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
    """Return quotas int64 [C], at most the counts [C], as equal as possible, that sum to `total`.

    If the counts sum to less than `total`, every quota is its count. Units that remain at the last
    level go to the classes with the most rows, then to those with the lowest index.

    Example:
        >>> water_fill([2, 9, 9], total=12).tolist()
        [2, 5, 5]
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
    """Yield (class, images kept, images missing to an even share) of classes below half that share.

    Kept images per class are given as `histogram` [C]. Classes with the fewest images come first.

    Example:
        >>> list(starving(np.array([1, 9, 8]), ["cat", "dog", "owl"]))
        [('cat', 1, 5)]
    """
    share = histogram.sum() / max(len(histogram), 1)
    for label in np.argsort(histogram, kind="stable"):
        if histogram[label] < share / 2:
            lacking = int(np.ceil(share)) - int(histogram[label])
            yield classes[label], int(histogram[label]), lacking
