"""How many inverted lists a search looks into, measured against an exact one on held-out rows.

Instead of autofaiss: a build of 1,000,000 x 512 with its tuning takes 43 CPU-seconds and 1.1 GB
against 276 and 4.4 GB (docs/LOG.md). The lists are read as matrix products: FAISS's own search
over a mapped file takes five times as long at 100 lists, and maps them beyond the memory budget.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.vectors import kmeans, knn
from indexes.vectors.index import exact_neighbors, map_index
from indexes.vectors.invlists import InvertedLists

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
K = 10
CLOSE_RECALL = 0.999
EQUAL = 2e-4  # in similarity: the rounding of half floats


def tune_nprobe(
    path: Path,
    row_ids: Rows,
    queries: Floats,
    blocks: Iterable[Floats],
    recall: float,
    close: float,
) -> dict[str, Any]:
    """The card's figures: what was measured, and the settings that follow from it.

    row_ids, queries: row numbers [q] of the corpus, and these unit rows [q, D]; blocks: all rows,
    in order. `nprobe`: lists for `recall` of the 10 nearest others. `nprobe_close`: lists for
    CLOSE_RECALL of those of them more similar than `close`, which near-duplicates are.
    """
    index = map_index(path)
    lists = InvertedLists(path, index)
    list_ids = kmeans.nearest_centroid(queries, lists.centroids)
    similarity, exact = exact_neighbors(queries, blocks, min(K + 1, index.ntotal))
    is_neighbor = exact != row_ids[:, None]
    is_close = is_neighbor & (similarity > close)

    @functools.cache
    def hits(nprobe: int) -> Flags:
        values, rows = knn.nearest_others(lists, row_ids, list_ids, queries, K, nprobe)
        # Of rows that are equally near any will do.
        equal = similarity <= values[:, -1:] + EQUAL
        hit: Flags = (exact[:, :, None] == rows[:, None, :]).any(2) | equal
        return hit

    nprobe, reached = least_sufficient(
        lambda n: hit_frac(hits(n), is_neighbor), recall, 1, index.nlist
    )
    nprobe_close, close_reached = least_sufficient(
        lambda n: hit_frac(hits(n), is_close), CLOSE_RECALL, nprobe, index.nlist
    )
    return {
        "nprobe": nprobe,
        "recall_at_10": round(reached, 4),
        "close": close,
        "nprobe_close": nprobe_close,
        "recall_close": round(close_reached, 4),
        "recall_queries": len(queries),
    }


def hit_frac(hits: Flags, wanted: Flags) -> float:
    """Share of the `wanted` that are `hits` (bool [q, k] both); 1 where none is wanted."""
    return float(hits[wanted].mean()) if wanted.any() else 1.0


def least_sufficient(
    reached: Callable[[int], float], wanted: float, low: int, high: int
) -> tuple[int, float]:
    """The least number in low..high (to a sixteenth) that reaches `wanted`, and what it reaches.

    Short of that, the one from where on doubling mends less than a twentieth of what is missing:
    codes err too.

    Example:
        >>> least_sufficient(lambda n: n / 8, 0.5, 1, 8)
        (4, 0.5)
    """
    below, at, value = low - 1, low, reached(low)
    while value < wanted and at < high:
        below, at, before = at, min(2 * at, high), value
        value = reached(at)
        if before > 0.5 and value - before < (1 - before) / 20:
            return at, value
    while value >= wanted and at - below > max(1, at // 16):
        middle = (below + at) // 2
        if (at_middle := reached(middle)) >= wanted:
            at, value = middle, at_middle
        else:
            below = middle
    return at, value
