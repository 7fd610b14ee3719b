"""Near duplicates: candidates by nearest signatures, verified thumb by thumb, one kept of a group.

Likeness is not transitive, and a chain of textures could tie thousands of pictures together. So a
group is what its kept image itself is like: members that are not start groups of their own.
Memory: that of the alike pairs and of one block, whatever the corpus.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes import npy
from indexes.images.thumbnails import WIDTH
from indexes.progress import Progress
from indexes.vectors.index import Vectors
from pipeline.dedup.signatures import NUM_NEIGHBORS, SIMILAR, of_thumbs
from pipeline.dedup.similarity import image_similarity
from pipeline.pool import Pool, chunks

Array = npt.NDArray[Any]
NEAR = 0.955
"""Likeness of a near duplicate."""
GROUP_THRESHOLD = 0.93
"""Likeness that is enough within a group that stricter pairs have brought together."""
ROUNDS = 64
ROWS = 1 << 16


@dataclass(frozen=True)
class Groups:
    """Row `rows[i]` repeats row `kept[i]`, with likeness `alike[i]`; rows ascend, none is kept."""

    rows: Array
    kept: Array
    alike: Array

    def canonical(self, rows: Array) -> Array:
        """Each of `rows` itself, or the row that is kept in its stead."""
        if not len(self.rows):
            return rows
        at = np.searchsorted(self.rows, rows).clip(max=len(self.rows) - 1)
        return np.where(self.rows[at] == rows, self.kept[at], rows)


EMPTY = Groups(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


def open_thumbs(pool: Pool, path: Path) -> Array:
    """Every thumb uint8 [N, WIDTH] in one file, memory-mapped: pairs lie anywhere in the pool."""
    with npy.writing(path, (len(pool), WIDTH), np.uint8) as writer:
        for block in pool.blocks:
            writer.write(block.matrix("thumb"))
    thumbs: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return thumbs


def find(
    pool: Pool, thumbs: Array, nearest: Vectors, copies: Groups, scratch: Path, device: str
) -> Groups:
    """The near duplicates among rows that are no exact copies; copies stand for their first.

    The best of a group is kept: most pixels, then highest log-odds, then lowest key hash.
    """

    def alike(one: Array, other: Array) -> Array:
        low, high = np.minimum(one, other), np.maximum(one, other)
        pieces = [
            image_similarity(thumbs[low[at]], thumbs[high[at]], device)
            for at in chunks(len(one), ROWS)
        ]
        return np.concatenate([np.zeros(0, np.float32), *pieces])

    found = [np.zeros((0, 2), np.int64)]
    with Progress("dedup", len(pool)) as progress:
        for pairs, done in _pairs(nearest, pool.blocks, scratch):
            pairs = np.sort(copies.canonical(pairs), axis=1)
            pairs = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)
            found.append(pairs[alike(pairs[:, 0], pairs[:, 1]) >= NEAR])
            progress.add(done)
    groups = cluster(pool, np.concatenate(found), alike)
    # More alike rows than neighbors looked at may have come out as several groups.
    kept, sizes = np.unique(groups.kept, return_counts=True)
    crowds = kept[sizes >= NUM_NEIGHBORS // 2]
    if len(crowds) > 1:
        some = of_thumbs(thumbs[crowds], scratch / "crowds")
        pairs = np.concatenate([crowds[pairs] for pairs, _ in _pairs(some, [crowds], scratch)])
        merged = cluster(pool, pairs[alike(pairs[:, 0], pairs[:, 1]) >= NEAR], alike)
        groups = joined(groups, merged)
    return groups


def _pairs(nearest: Vectors, blocks: Sequence[Sized], scratch: Path) -> Iterator[tuple[Array, int]]:
    """(pairs int64 [m, 2] of a block's rows and those near them, rows in the block).

    A pair that was there before is left out.
    """
    with tempfile.TemporaryFile(dir=scratch) as file:
        total = sum(map(len, blocks))
        os.posix_fallocate(file.fileno(), 0, total * NUM_NEIGHBORS * 8)  # full disk: an error
        seen: Array = np.memmap(file, np.int64, "r+", shape=(total, NUM_NEIGHBORS))
        own = 0
        for similarity, rows in nearest.neighbors(blocks, NUM_NEIGHBORS):
            mine = np.broadcast_to(np.arange(own, own + len(rows))[:, None], rows.shape)
            seen[own : own + len(rows), : rows.shape[1]] = rows
            own += len(rows)
            close = (rows >= 0) & (similarity >= SIMILAR)
            one, other = mine[close], rows[close]
            again = (other < one) & (seen[other] == one[:, None]).any(1)
            yield np.stack([one[~again], other[~again]], axis=1), len(rows)


def cluster(pool: Pool, pairs: Array, alike: Callable[[Array, Array], Array]) -> Groups:
    """Groups of alike pairs [m, 2]: each connected component gives its best row and what that is
    LOOSEly like; what is left of it is taken again, without these.
    """
    rows, flat = np.unique(pairs, return_inverse=True)
    pairs = flat.reshape(-1, 2)
    pixels = pool.column("width")[rows].astype(np.int64) * pool.column("height")[rows]
    order = np.lexsort((pool.column("key_hash")[rows], -pool.column("log_odds")[rows], -pixels))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    dropped, kept, like = (
        [np.zeros(0, np.int64)],
        [np.zeros(0, np.int64)],
        [np.zeros(0, np.float32)],
    )
    for _ in range(ROUNDS):
        if not len(pairs):
            break
        best = order[components(len(rows), pairs, rank)]
        members = np.unique(pairs)
        others = members[best[members] != members]
        values = alike(rows[others], rows[best[others]])
        fallen = values >= GROUP_THRESHOLD
        dropped.append(others[fallen])
        kept.append(best[others[fallen]])
        like.append(values[fallen])
        gone = np.zeros(len(rows), bool)
        gone[others[fallen]] = gone[best[members]] = True
        pairs = pairs[~gone[pairs].any(1)]
    all_dropped = np.concatenate(dropped)
    by_row = np.argsort(all_dropped)
    return Groups(
        rows[all_dropped[by_row]], rows[np.concatenate(kept)[by_row]], np.concatenate(like)[by_row]
    )


def components(num_rows: int, pairs: Array, rank: Array) -> Array:
    """Per row the lowest rank in its connected component, int64 [num_rows].

    Labels flow along the pairs and are short-cut until nothing changes.
    """
    holder = np.empty(num_rows, np.int64)
    holder[rank] = np.arange(num_rows)
    label = rank.copy()
    while True:
        before = label.copy()
        lowest = np.minimum(label[pairs[:, 0]], label[pairs[:, 1]])
        np.minimum.at(label, pairs[:, 0], lowest)
        np.minimum.at(label, pairs[:, 1], lowest)
        label = label[holder[label]]
        if (label == before).all():
            return label


def joined(groups: Groups, merged: Groups) -> Groups:
    """`groups` after some of the rows that they keep were dropped for others in `merged`."""
    rows = np.concatenate([groups.rows, merged.rows])
    order = np.argsort(rows)
    kept = np.concatenate([merged.canonical(groups.kept), merged.kept])
    return Groups(rows[order], kept[order], np.concatenate([groups.alike, merged.alike])[order])
