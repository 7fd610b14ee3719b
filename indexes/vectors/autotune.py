"""How many inverted lists a search looks into, measured against an exact one on held-out rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy.typing as npt

from indexes.vectors import invlists, kmeans, knn
from indexes.vectors.index import flat_index, map_index

Array = npt.NDArray[Any]
K = 10
CLOSE_RECALL = 0.999
EQUAL = 2e-4  # in similarity: the rounding of half floats


def tuned(
    path: Path,
    own: Array,
    queries: Array,
    blocks: Iterable[Array],
    recall: float,
    close: float,
) -> dict[str, Any]:
    """The card's figures: what was measured, and the settings that follow from it.

    own, queries: row numbers [q] of the corpus, and these unit rows [q, D]; blocks: all rows, in
    order. `nprobe`: lists for `recall` of the 10 nearest others. `nprobe_close`: lists for
    CLOSE_RECALL of those of them more similar than `close`, which near-duplicates are.
    """
    index = map_index(path)
    merged = invlists.Lists(path, index)
    home = kmeans.nearest(queries, merged.means)
    similarity, exact = flat_index(queries, blocks, min(K + 1, index.ntotal))
    wanted = exact != own[:, None]
    wanted_close = wanted & (similarity > close)

    @functools.cache
    def hits(nprobe: int) -> Array:
        values, rows = knn.nearest(merged, own, home, queries, K, nprobe)
        # Of rows that are equally near any will do.
        equal = similarity <= values[:, -1:] + EQUAL
        found: Array = (exact[:, :, None] == rows[:, None, :]).any(2) | equal
        return found

    nprobe, reached = _least(lambda n: share(hits(n), wanted), recall, 1, index.nlist)
    nprobe_close, close_reached = _least(
        lambda n: share(hits(n), wanted_close), CLOSE_RECALL, nprobe, index.nlist
    )
    return {
        "nprobe": nprobe,
        "recall_at_10": round(reached, 4),
        "close": close,
        "nprobe_close": nprobe_close,
        "recall_close": round(close_reached, 4),
        "recall_queries": len(queries),
    }


def share(hits: Array, wanted: Array) -> float:
    """Share of the `wanted` that are `hits` (bool [q, k] both); 1 where none is wanted."""
    return float(hits[wanted].mean()) if wanted.any() else 1.0


def _least(
    reached: Callable[[int], float], wanted: float, low: int, high: int
) -> tuple[int, float]:
    """The least number in low..high (to a sixteenth) that reaches `wanted`, and what it reaches.

    Short of that, the one from where on doubling mends less than a twentieth of what is missing:
    codes err too.
    """
    below, at, value = low - 1, low, reached(low)
    while value < wanted and at < high:
        below, at, before = at, min(2 * at, high), value
        value = reached(at)
        if before > 0.5 and value - before < (1 - before) / 20:
            return at, value
    while value >= wanted and at - below > max(1, at // 16):
        middle = (below + at) // 2
        if (found := reached(middle)) >= wanted:
            at, value = middle, found
        else:
            below = middle
    return at, value
