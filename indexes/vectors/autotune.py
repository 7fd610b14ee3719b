"""Choose how many inverted lists a search probes, by comparison with an exact search.

This replaces autofaiss: a build of 1,000,000 x 512 with its tuning takes 43 CPU-seconds and 1.1 GB
instead of 276 and 4.4 GB (docs/LOG.md). Lists are compared by matrix products. FAISS's own search
over a mapped file takes five times as long at 100 lists and exceeds the memory budget.
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
EQUAL = 2e-4  # similarities this close are equal: the rounding error of float16


def tune_nprobe(
    path: Path,
    row_ids: Rows,
    queries: Floats,
    blocks: Iterable[Floats],
    recall: float,
    close: float,
) -> dict[str, Any]:
    """Measure recall and return the figures for the index's card: settings and what they reach.

    row_ids [q]: row numbers of the corpus; queries [q, D]: these rows at unit length; blocks: all
    rows, in order. The result's `nprobe` is the number of lists that finds the share `recall` of
    the 10 nearest others. `nprobe_close` finds CLOSE_RECALL of those among them that are more
    similar than `close`, as near duplicates are.
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
        # Any of several rows that are equally near counts as a hit.
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
    """Return the share of `wanted` that are `hits` (both bool [q, k]); 1 if none is wanted.

    Example:
        >>> hit_frac(np.array([[True, False]]), np.array([[True, True]]))
        0.5
    """
    return float(hits[wanted].mean()) if wanted.any() else 1.0


def least_sufficient(
    reached: Callable[[int], float], wanted: float, low: int, high: int
) -> tuple[int, float]:
    """Return the smallest number from low to high that reaches `wanted`, and the value it reaches.

    The number is exact to a sixteenth. The search also stops where doubling the number recovers
    less than a twentieth of the missing share: the rest is lost to the rounding of the codes.

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
