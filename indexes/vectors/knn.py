"""The nearest others of every row of an index, list by list as matrix products.

Rows are taken in the order of the lists, a tile at a time: a tile's rows look into much the same
lists, so each list is read once a tile and compared with all of them in one product, some eight
times faster than a search row by row.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sized
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from indexes.progress import Progress
from indexes.vectors import kmeans
from indexes.vectors.invlists import Lists

Array = npt.NDArray[Any]
LIST_ROWS = 2048  # of one list that are compared at once
MOST_TILE_ROWS = 32_768
MOST_WAITING = 1 << 22


def all_pairs(
    lists: Lists,
    blocks: Iterable[Sized],
    k: int,
    *,
    probes: int,
    budget_bytes: int,
) -> Iterator[tuple[Array, Array]]:
    """(similarity float32 [n, k], row int64 [n, k]) of each block, nearest first, in row order.

    probes: lists that a row looks into.
    """
    total = int(lists.starts[-1])
    answer = np.dtype([("similarity", "<f4", (k,)), ("row", "<i8", (k,))])
    row_bytes = 8 * lists.means.shape[1] + 16 * probes + 100 * k + 6 * LIST_ROWS
    tile_rows = int(np.clip(budget_bytes // row_bytes, 256, MOST_TILE_ROWS))
    with tempfile.TemporaryFile(dir=lists.path.parent) as file:
        os.posix_fallocate(file.fileno(), 0, total * answer.itemsize)  # full disk: now, an error
        with Progress("neighbors", total, "vectors") as progress:
            for start in range(0, total, tile_rows):
                stop = min(start + tile_rows, total)
                own, home, rows = _tile(lists, start, stop)
                found = nearest(lists, own, home, rows, k, probes)
                answers = np.memmap(file, answer, "r+", shape=(total,))
                answers["similarity"][own], answers["row"][own] = found
                del answers  # unmapped: what was written is the system's to keep or let go
                progress.add(stop - start)
        yield from _by_block(file, answer, blocks)


def _by_block(
    file: IO[bytes], answer: np.dtype[Any], blocks: Iterable[Sized]
) -> Iterator[tuple[Array, Array]]:
    file.seek(0)
    for block in blocks:
        answers = np.frombuffer(file.read(len(block) * answer.itemsize), answer)
        yield answers["similarity"], answers["row"]


def _tile(lists: Lists, start: int, stop: int) -> tuple[Array, Array, Array]:
    """Entries start..stop in the order of the lists: row numbers, lists [m], rows [m, D]."""
    first = int(np.searchsorted(lists.starts, start, "right")) - 1
    own, home, rows = [], [], []
    for number in range(first, int(np.searchsorted(lists.starts, stop))):
        begin = int(lists.starts[number])
        low, high = max(start - begin, 0), min(stop - begin, int(lists.sizes[number]))
        found = lists.read(number, low, high)
        own.append(found[0])
        home.append(np.full(high - low, number))
        rows.append(found[1])
    return np.concatenate(own), np.concatenate(home), np.concatenate(rows)


class _Best:
    """The best k others of m rows so far, and candidates that beat the worst of them."""

    def __init__(self, own: Array, k: int) -> None:
        self.own, self.k = own, k
        self.similarity = np.full((len(own), k), -np.inf, np.float32)
        self.others = np.full((len(own), k), -1, np.int64)
        self.waiting: list[tuple[Array, Array, Array]] = []
        self.num_waiting = 0

    def add(self, at: Array, similarity: Array, others: Array) -> None:
        """Similarity [n, s] of rows `at` [n] to others [s]."""
        least, most = self.similarity[at, -1:], self.k + 1  # with itself
        if similarity.shape[1] > most and np.isneginf(least).any():
            best = np.argpartition(similarity, -most, axis=1)[:, -most:]
            row, column = np.repeat(np.arange(len(at)), most), best.ravel()
        else:
            row, column = np.divmod(np.flatnonzero(similarity > least), len(others))
        self.waiting.append((at[row], similarity[row, column], others[column]))
        self.num_waiting += len(row)
        if self.num_waiting > MOST_WAITING:
            self.settle()

    def settle(self) -> None:
        """Merges the candidates in: each row's best k, nearest first."""
        known = np.repeat(np.arange(len(self.own)), self.k)
        self.waiting.append((known, self.similarity.ravel(), self.others.ravel()))
        at, similarity, others = (np.concatenate(some) for some in zip(*self.waiting, strict=True))
        other = (others != self.own[at]) & (others >= 0)
        at, similarity, others = at[other], similarity[other], others[other]
        # One integer orders rows and, within each, similarities: much faster than two keys.
        order = np.argsort((at << 32) + ((2 - similarity) * 2.0**30).astype(np.int64))
        at = at[order]
        rank = np.arange(len(at)) - np.searchsorted(at, np.arange(len(self.own)))[at]
        kept, rank = rank < self.k, rank[rank < self.k]
        self.similarity[at[kept], rank] = similarity[order[kept]]
        self.others[at[kept], rank] = others[order[kept]]
        self.waiting, self.num_waiting = [], 0


def nearest(
    lists: Lists, own: Array, home: Array, rows: Array, k: int, probes: int
) -> tuple[Array, Array]:
    """(similarity [m, k], row [m, k]): the best k others of rows [m, D], numbered `own`, of lists
    `home`, in their `probes` nearest lists.

    A row's own list first: what is in the others must beat that, and little does.
    """
    best = _Best(own, k)

    def look(number: int, at: Array) -> None:
        queries, size = rows[at], int(lists.sizes[number])
        for start in range(0, size, LIST_ROWS):
            others, some = lists.read(number, start, min(start + LIST_ROWS, size))
            best.add(at, queries @ some.T, others)

    for number in np.unique(home).tolist():
        look(number, np.flatnonzero(home == number))
    best.settle()
    at, looked = kmeans.near(rows, lists.means, probes)
    at, looked = at[looked != home[at]], looked[looked != home[at]]
    order = np.argsort(looked, kind="stable")
    at, bounds = at[order], np.searchsorted(looked[order], np.arange(len(lists.means) + 1))
    for number in np.flatnonzero(np.diff(bounds)).tolist():
        look(number, at[bounds[number] : bounds[number + 1]])
    best.settle()
    return best.similarity, best.others
