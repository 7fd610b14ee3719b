"""Inverted lists on disk: the sorted entries of each part, merged into one FAISS file.

The file of a part holds, sorted by list: the list of every entry (int32 [n]), its row in the part
(int32 [n]), and its code (uint8 [n, c]). The merged file equals the output of `faiss.write_index`
(an `ilar` section: the codes of each list, then its rows as int64). Plain writes in order keep one
chunk in memory and turn a full disk into an exception rather than a bus error. FAISS's own train
and add need 2.4 GB for 1,000,000 x 512. This build needs 1.1 GB, or 76 MB within a budget of
128 MB (docs/LOG.md).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes import artifact
from indexes.artifact import ArtifactError

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]
SmallInts = npt.NDArray[np.int32]
ROW_BYTES = 8
EMPTY_SECTION_BYTES = 32


def write_part(path: Path, lists: Rows, codes: Codes) -> None:
    """Write the entries of a part: row i is in list `lists[i]` ([n]) as `codes[i]` ([n, c])."""
    order = np.argsort(lists, kind="stable")
    with artifact.writing(path) as aside, aside.open("wb") as file:
        file.write(lists[order].astype("<i4").data)
        file.write(order.astype("<i4").data)
        file.write(codes[order].data)


def open_part(path: Path, num_rows: int, code_bytes: int) -> tuple[SmallInts, SmallInts, Codes]:
    """Open a part, memory-mapped: its lists [n], rows [n] and codes uint8 [n, c].

    Raises ArtifactError if the size of the file is wrong.
    """
    size = path.stat().st_size
    if size != num_rows * (8 + code_bytes):
        raise ArtifactError(
            f"{path} is damaged ({size:,} bytes for {num_rows:,} vectors): delete it and rerun"
        )
    lists, rows = (np.memmap(path, "<i4", "r", offset, num_rows) for offset in (0, 4 * num_rows))
    return lists, rows, np.memmap(path, np.uint8, "r", 8 * num_rows, (num_rows, code_bytes))


def merge_parts(
    path: Path,
    head: bytes,
    parts: Sequence[tuple[Path, int]],
    num_lists: int,
    code_bytes: int,
    chunk_bytes: int,
) -> None:
    """Write the FAISS file of all parts, given as (file, number of rows) in the corpus' row order.

    `head`: the serialized index without entries. Memory: `chunk_bytes`, or the largest list if
    that is larger.
    """
    sizes = np.zeros(num_lists, np.int64)
    for part, num_rows in parts:
        sizes += _sizes(part, open_part(part, num_rows, code_bytes)[0], num_lists)
    section = b"".join(
        [
            b"ilar",
            np.array([num_lists, code_bytes], "<u8").tobytes(),
            b"full",
            np.array([num_lists, *sizes], "<u8").tobytes(),
        ]
    )
    # Sorting by list holds codes and rows twice.
    ends = np.cumsum(sizes * (code_bytes + ROW_BYTES) * 2)
    with artifact.writing(path) as aside, aside.open("wb") as file:
        file.write(head[:-EMPTY_SECTION_BYTES] + section)
        start = 0
        while start < num_lists:
            base = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, base + chunk_bytes, "right")))
            codes, rows = _gather(parts, start, stop, code_bytes)
            at = 0
            for size in sizes[start:stop].tolist():
                file.write(codes[at : at + size].data)
                file.write(rows[at : at + size].data)
                at += size
            start = stop


def _sizes(path: Path, lists: SmallInts, num_lists: int) -> Rows:
    """The number of entries of each list, int64 [num_lists]."""
    if lists.min(initial=0) < 0 or lists.max(initial=0) >= num_lists or (np.diff(lists) < 0).any():
        raise ArtifactError(f"{path} is damaged (its lists are not sorted): delete it and rerun")
    return np.bincount(lists, minlength=num_lists)


def _gather(
    parts: Sequence[tuple[Path, int]], start: int, stop: int, code_bytes: int
) -> tuple[Codes, Rows]:
    """Codes [n, c] and corpus rows [n] of the entries of lists start to stop, list by list."""
    lists, rows, codes, first = [], [], [], 0
    for path, num_rows in parts:
        part_lists, part_rows, part_codes = open_part(path, num_rows, code_bytes)
        low, high = np.searchsorted(part_lists, [start, stop])
        lists.append(np.array(part_lists[low:high]))
        rows.append(part_rows[low:high] + np.int64(first))
        codes.append(np.array(part_codes[low:high]))
        first += num_rows
    order = np.argsort(np.concatenate(lists), kind="stable")
    return np.concatenate(codes)[order], np.concatenate(rows)[order]


class InvertedLists:
    """The lists of a merged file, read with plain reads, so that only the result is in memory.

    centroids: float32 [L, D]. sizes [L]: entries of each list; starts [L + 1]: their running sum.
    Raises ArtifactError if the file is damaged.
    """

    def __init__(self, path: Path, index: Any) -> None:
        """Open the file; `index` is the mapped FAISS index of the same file."""
        num_lists, num_vectors, code_bytes = index.nlist, index.ntotal, index.sq.code_size
        self.path, self.code_bytes = path, code_bytes
        self.centroids: Floats = index.quantizer.reconstruct_n(0, num_lists)
        self._decode = index.sq.decode
        with path.open("rb") as file:
            begin = path.stat().st_size - num_vectors * (code_bytes + ROW_BYTES)
            file.seek(begin - 8 * num_lists)
            self.sizes = np.fromfile(file, "<u8", num_lists).astype(np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)])
        self._begin = begin
        if self.starts[-1] != num_vectors:
            raise ArtifactError(
                f"{path} is damaged: its lists do not hold {num_vectors:,} rows; delete its folder "
                "and rerun"
            )

    def read(self, number: int, start: int = 0, stop: int | None = None) -> tuple[Rows, Floats]:
        """Return (row numbers int64 [n], rows float32 [n, D]) of entries start..stop of a list.

        Raises ArtifactError if the file is truncated.
        """
        size = int(self.sizes[number])
        stop = size if stop is None else stop
        begin = self._begin + int(self.starts[number]) * (self.code_bytes + ROW_BYTES)
        with self.path.open("rb", buffering=0) as file:
            codes = os.pread(file.fileno(), (stop - start) * self.code_bytes,
                             begin + start * self.code_bytes)  # fmt: skip
            rows = os.pread(file.fileno(), (stop - start) * ROW_BYTES,
                            begin + size * self.code_bytes + start * ROW_BYTES)  # fmt: skip
        if len(rows) != (stop - start) * ROW_BYTES:
            raise ArtifactError(f"{self.path} is truncated: delete its folder and rerun")
        shape = (-1, self.code_bytes)
        return np.frombuffer(rows, "<i8"), self._decode(
            np.frombuffer(codes, np.uint8).reshape(shape)
        )
