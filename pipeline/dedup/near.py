"""Near duplicates: find candidate pairs by signature, verify them by thumb, keep one of each group.

Similarity is not transitive: a chain of similar textures could join thousands of different
pictures. A group therefore holds only images that are similar to the image it keeps. The other
images of a chain form groups of their own. Memory: the similar pairs and one block, whatever the
size of the corpus.
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
"""Similarity from which two images count as near duplicates."""
GROUP_THRESHOLD = 0.93
"""Similarity that suffices within a group, once pairs above NEAR_THRESHOLD have connected it."""
MAX_ROUNDS = 64
CHUNK_ROWS = 1 << 16  # pairs whose thumbs are gathered at a time


@dataclass(frozen=True)
class Groups:
    """Groups of duplicates: row `rows[i]` repeats row `kept[i]`, with similarity `similarity[i]`.

    `rows` ascend, and no row is in both `rows` and `kept`.
    """

    rows: Rows
    kept: Rows
    similarity: Similarities

    def canonical(self, rows: Rows) -> Rows:
        """Map each of `rows` [n] to the row that is kept for it, or to itself."""
        if not len(self.rows):
            return rows
        at = np.searchsorted(self.rows, rows).clip(max=len(self.rows) - 1)
        return np.where(self.rows[at] == rows, self.kept[at], rows)

    def merged(self, others: Groups) -> Groups:
        """Merge with `others`, groups among the rows that these groups keep."""
        rows = np.concatenate([self.rows, others.rows])
        order = np.argsort(rows)
        kept = np.concatenate([others.canonical(self.kept), others.kept])
        similarity = np.concatenate([self.similarity, others.similarity])
        return Groups(rows[order], kept[order], similarity[order])


EMPTY = Groups(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


def open_thumbs(pool: Pool, path: Path) -> Pixels:
    """Copy all thumbs uint8 [N, WIDTH] to one file and return it memory-mapped.

    One file gives fast access to pairs of rows from anywhere in the pool.
    """
    with npy.writing(path, (len(pool), WIDTH), np.uint8) as writer:
        for block in pool.blocks:
            writer.write(block.matrix("thumb"))
    thumbs: Pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    return thumbs


def pair_similarity(
    thumbs: Pixels, device: str, first: Rows, second: Rows, *, chunk_rows: int = CHUNK_ROWS
) -> Similarities:
    """Return the similarity float32 [m] of m pairs of rows, symmetric in the two rows.

    `thumbs` are the pool's, uint8 [N, WIDTH].
    """
    low, high = np.minimum(first, second), np.maximum(first, second)
    pieces = [
        image_similarity(thumbs[low[piece]], thumbs[high[piece]], device)
        for piece in chunks(len(first), chunk_rows)
    ]
    return np.concatenate([np.zeros(0, np.float32), *pieces])


def find_near_duplicates(
    pool: Pool, thumbs: Pixels, index: Vectors, copies: Groups, scratch: Path, device: str
) -> Groups:
    """Return the groups of near duplicates among the rows that are not exact copies.

    The best image of a group is kept: the one with most pixels, then with the highest log-odds,
    then with the lowest key hash. `thumbs` are the pool's, uint8 [N, WIDTH].
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
    # A group with more rows than NUM_NEIGHBORS may have been split into several groups.
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
    """Yield (pairs int64 [m, 2] of a block's rows and their neighbors, rows in the block).

    Pairs that an earlier block has yielded are left out.
    """
    with tempfile.TemporaryFile(dir=scratch) as file:
        total = sum(map(len, blocks))
        # Reserving the space raises an error on a full disk, before the file is mapped.
        os.posix_fallocate(file.fileno(), 0, total * NUM_NEIGHBORS * 8)
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
    """Cluster similar pairs int64 [m, 2] into groups.

    In each connected component, the best row and the rows whose similarity to it is at least
    GROUP_THRESHOLD form a group. The remaining rows of the component are clustered again.
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
    """Return (positions [n] of rows [n], best first; the rank [n] of each row)."""
    pixels = pool.column("width")[rows].astype(np.int64) * pool.column("height")[rows]
    order = np.lexsort((pool.column("key_hash")[rows], -pool.column("log_odds")[rows], -pixels))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return order, rank


def components(num_rows: int, pairs: Rows, rank: Rows) -> Rows:
    """Return for each row the lowest rank in its connected component, int64 [num_rows].

    Labels propagate along the pairs [m, 2] with pointer jumping, until none changes. `rank` is
    [num_rows].

    Example:
        >>> components(4, np.array([[0, 1], [1, 3]]), np.arange(4)).tolist()
        [0, 0, 2, 0]
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
