"""NumPy files written atomically: a whole array at once, or some rows at a time."""

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
    """Return the bytes of a .npy file that precede the data of a C-ordered array.

    Example:
        >>> header((2, 3), np.float32)[:6]
        b'\\x93NUMPY'
    """
    buffer = io.BytesIO()
    fields = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def save(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a whole array of any shape [N, ...]."""
    with artifact.writing(path) as aside, aside.open("wb") as file:
        np.save(file, array, allow_pickle=False)


class NpyWriter:
    """Writes an array of a known shape to an open file, some rows at a time, in order.

    It uses plain writes rather than a memory map, because a full disk is then an exception; with a
    memory map it is a bus error, which kills the process.
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.shape, self.dtype, self.num_rows = shape, np.dtype(dtype), 0
        self._file = file
        file.write(header(shape, dtype))

    def write(self, rows: npt.NDArray[Any]) -> None:
        """Append rows [n, ...].

        Raises ValueError if the dtype or the row shape differs, or if there are too many rows.
        """
        fits = self.num_rows + len(rows) <= self.shape[0]
        if rows.dtype != self.dtype or rows.shape[1:] != self.shape[1:] or not fits:
            raise ValueError(
                f"rows {rows.shape} of {rows.dtype} do not fit after {self.num_rows:,} rows of an "
                f"array {self.shape} of {self.dtype}"
            )
        self._file.write(np.ascontiguousarray(rows).data)
        self.num_rows += len(rows)


@contextmanager
def writing(path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Iterator[NpyWriter]:
    """Yield a writer; the file appears at `path` once all of its rows have been written.

    Raises ValueError at the end of the block if rows are missing; `path` then stays unchanged.

    Example::

        with writing(Path("squares.npy"), (4,), np.int64) as writer:
            for start in (0, 2):
                writer.write(np.arange(start, start + 2) ** 2)
    """
    with artifact.writing(path) as aside, aside.open("wb") as file:
        writer = NpyWriter(file, shape, dtype)
        yield writer
        if writer.num_rows != shape[0]:
            raise ValueError(f"{path} got {writer.num_rows:,} of {shape[0]:,} rows")
