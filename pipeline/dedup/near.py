"""Near duplicates: candidates by nearest signatures, verified thumb by thumb, one kept of a group.

Similarity is not transitive, and a chain of textures could tie thousands of pictures together. So
a group is what its kept image itself is similar to: members that are not start groups of their own.
Memory: that of the similar pairs and of one block, whatever the corpus.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexes import npy
from indexes.command.progress import Progress
from indexes.images.decode import Pixels
from indexes.images.thumbnails import WIDTH
from indexes.vectors.index import Vectors
from pipeline.dedup.signatures import CANDIDATE_THRESHOLD, NUM_NEIGHBORS, index_thumbs
from pipeline.dedup.similarity import image_similarity
from pipeline.pool import Pool, chunks

Rows = npt.NDArray[np.int64]
Similarities = npt.NDArray[np.float32]
PairSimilarity = Callable[[Rows, Rows], Similarities]
NEAR_THRESHOLD = 0.955
"""Similarity of a near duplicate."""
GROUP_THRESHOLD = 0.93
"""Similarity that is enough within a group that stricter pairs have brought together."""
MAX_ROUNDS = 64
CHUNK_ROWS = 1 << 16  # pairs whose thumbs are gathered at a time


@dataclass(frozen=True)
class Groups:
    """Row `rows[i]` repeats row `kept[i]`, with `similarity[i]`; rows ascend, none is kept."""

    rows: Rows
    kept: Rows
    similarity: Similarities

    def canonical(self, rows: Rows) -> Rows:
        """Each of `rows` itself, or the row that is kept in its stead."""
        if not len(self.rows):
            return rows
        at = np.searchsorted(self.rows, rows).clip(max=len(self.rows) - 1)
        return np.where(self.rows[at] == rows, self.kept[at], rows)

    def merged(self, others: Groups) -> Groups:
        """These groups after some of the rows that they keep were dropped for others."""
        rows = np.concatenate([self.rows, others.rows])
        order = np.argsort(rows)
        kept = np.concatenate([others.canonical(self.kept), others.kept])
        similarity = np.concatenate([self.similarity, others.similarity])
        return Groups(rows[order], kept[order], similarity[order])


EMPTY = Groups(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


def open_thumbs(pool: Pool, path: Path) -> Pixels:
    """Every thumb uint8 [N, WIDTH] in one file, memory-mapped: pairs lie anywhere in the pool."""
    with npy.writing(path, (len(pool), WIDTH), np.uint8) as writer:
        for block in pool.blocks:
            writer.write(block.matrix("thumb"))
    thumbs: Pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    return thumbs


def pair_similarity(
    thumbs: Pixels, device: str, first: Rows, second: Rows, *, chunk_rows: int = CHUNK_ROWS
) -> Similarities:
    """Similarity float32 [m] of the thumbs of m pairs of rows; which comes first is no matter."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    pieces = [
        image_similarity(thumbs[low[piece]], thumbs[high[piece]], device)
        for piece in chunks(len(first), chunk_rows)
    ]
    return np.concatenate([np.zeros(0, np.float32), *pieces])


def find_near_duplicates(
    pool: Pool, thumbs: Pixels, index: Vectors, copies: Groups, scratch: Path, device: str
) -> Groups:
    """The near duplicates among rows that are no exact copies; copies stand for their first.

    The best of a group is kept: most pixels, then highest log-odds, then lowest key hash.
    """
    similarity = partial(pair_similarity, thumbs, device)
    near = [np.zeros((0, 2), np.int64)]
    with Progress("dedup", len(pool)) as progress:
        for pairs, num_rows in _candidate_pairs(index, pool.blocks, scratch):
            pairs = np.sort(copies.canonical(pairs), axis=1)
            pairs = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)
            near.append(pairs[similarity(pairs[:, 0], pairs[:, 1]) >= NEAR_THRESHOLD])
            progress.add(num_rows)
    groups = cluster(pool, np.concatenate(near), similarity)
    # More similar rows than neighbors looked at may have come out as several groups.
    kept, sizes = np.unique(groups.kept, return_counts=True)
    crowded = kept[sizes >= NUM_NEIGHBORS // 2]
    if len(crowded) > 1:
        heads = index_thumbs(thumbs[crowded], scratch / "crowds")
        candidates = _candidate_pairs(heads, [crowded], scratch)
        pairs = np.concatenate([crowded[pairs] for pairs, _ in candidates])
        near_pairs = pairs[similarity(pairs[:, 0], pairs[:, 1]) >= NEAR_THRESHOLD]
        groups = groups.merged(cluster(pool, near_pairs, similarity))
    return groups


def _candidate_pairs(
    index: Vectors, blocks: Sequence[Sized], scratch: Path
) -> Iterator[tuple[Rows, int]]:
    """(pairs int64 [m, 2] of a block's rows and those near them, rows in the block).

    A pair that was there before is left out.
    """
    with tempfile.TemporaryFile(dir=scratch) as file:
        total = sum(map(len, blocks))
        os.posix_fallocate(file.fileno(), 0, total * NUM_NEIGHBORS * 8)  # full disk: an error
        neighbors: Rows = np.memmap(file, np.int64, "r+", shape=(total, NUM_NEIGHBORS))
        start = 0
        for similarity, rows in index.neighbors(blocks, NUM_NEIGHBORS):
            stop = start + len(rows)
            block_rows = np.broadcast_to(np.arange(start, stop)[:, None], rows.shape)
            neighbors[start:stop, : rows.shape[1]] = rows
            close = (rows >= 0) & (similarity >= CANDIDATE_THRESHOLD)
            row, neighbor = block_rows[close], rows[close]
            again = (neighbor < row) & (neighbors[neighbor] == row[:, None]).any(1)
            yield np.stack([row[~again], neighbor[~again]], axis=1), len(rows)
            start = stop


def cluster(pool: Pool, pairs: Rows, similarity: PairSimilarity) -> Groups:
    """Groups of similar pairs int64 [m, 2].

    Each connected component gives its best row and the rows that this one is similar to, by
    GROUP_THRESHOLD. What is left of the component is clustered again without these.
    """
    rows, flat = np.unique(pairs, return_inverse=True)
    pairs = flat.reshape(-1, 2)
    order, rank = _quality_order(pool, rows)
    dropped, kept = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    similarities = [np.zeros(0, np.float32)]
    for _ in range(MAX_ROUNDS):
        if not len(pairs):
            break
        best = order[components(len(rows), pairs, rank)]
        members = np.unique(pairs)
        others = members[best[members] != members]
        values = similarity(rows[others], rows[best[others]])
        in_group = values >= GROUP_THRESHOLD
        dropped.append(others[in_group])
        kept.append(best[others[in_group]])
        similarities.append(values[in_group])
        done = np.zeros(len(rows), bool)
        done[others[in_group]] = done[best[members]] = True
        pairs = pairs[~done[pairs].any(1)]
    all_dropped = np.concatenate(dropped)
    by_row = np.argsort(all_dropped)
    return Groups(
        rows[all_dropped[by_row]],
        rows[np.concatenate(kept)[by_row]],
        np.concatenate(similarities)[by_row],
    )


def _quality_order(pool: Pool, rows: Rows) -> tuple[Rows, Rows]:
    """(positions [n] of rows [n], best first; the rank [n] of each)."""
    pixels = pool.column("width")[rows].astype(np.int64) * pool.column("height")[rows]
    order = np.lexsort((pool.column("key_hash")[rows], -pool.column("log_odds")[rows], -pixels))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return order, rank


def components(num_rows: int, pairs: Rows, rank: Rows) -> Rows:
    """Per row the lowest rank in its connected component, int64 [num_rows].

    Labels flow along the pairs and are short-cut until nothing changes.
    """
    row_of_rank = np.empty(num_rows, np.int64)
    row_of_rank[rank] = np.arange(num_rows)
    label = rank.copy()
    while True:
        before = label.copy()
        lowest = np.minimum(label[pairs[:, 0]], label[pairs[:, 1]])
        np.minimum.at(label, pairs[:, 0], lowest)
        np.minimum.at(label, pairs[:, 1], lowest)
        label = label[row_of_rank[label]]
        if (label == before).all():
            return label
