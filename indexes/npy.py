"""NumPy files written atomically: an array at once, or row by row under a header for all rows."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from indexes import artifact


def header(shape: tuple[int, ...], dtype: npt.DTypeLike) -> bytes:
    """The bytes of a .npy file that come before the data of a C-ordered array."""
    buffer = io.BytesIO()
    fields = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def save(path: Path, array: npt.NDArray[Any]) -> None:
    """Writes a whole array."""
    with artifact.writing(path) as aside, aside.open("wb") as file:
        np.save(file, array, allow_pickle=False)


class NpyWriter:
    """Writes an array of a known shape to an open file, some rows at a time, in order.

    Not through a memory map: a full disk is then an error, and not a bus error.
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.shape, self.dtype, self.num_rows = shape, np.dtype(dtype), 0
        self._file = file
        file.write(header(shape, dtype))

    def write(self, rows: npt.NDArray[Any]) -> None:
        """Appends rows [n, ...]; ValueError for another dtype, another width or too many."""
        fits = self.num_rows + len(rows) <= self.shape[0]
        if rows.dtype != self.dtype or rows.shape[1:] != self.shape[1:] or not fits:
            raise ValueError(
                f"rows {rows.shape} of {rows.dtype} after {self.num_rows:,} do not fit an array "
                f"{self.shape} of {self.dtype}"
            )
        self._file.write(np.ascontiguousarray(rows).data)
        self.num_rows += len(rows)


@contextmanager
def writing(path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Iterator[NpyWriter]:
    """Yields a writer; the file appears at `path` once all of its rows have been written.

    Raises ValueError at the end where rows are missing; `path` stays as it was.

    Example:
        >>> with writing(Path("squares.npy"), (4,), np.int64) as writer:
        ...     for start in (0, 2):
        ...         writer.write(np.arange(start, start + 2) ** 2)
    """
    with artifact.writing(path) as aside, aside.open("wb") as file:
        writer = NpyWriter(file, shape, dtype)
        yield writer
        if writer.num_rows != shape[0]:
            raise ValueError(f"{path} got {writer.num_rows:,} of {shape[0]:,} rows")
