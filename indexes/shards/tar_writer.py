"""Write reproducible tars, byte for byte: mtime 0, USTAR headers and a running sha256."""

from __future__ import annotations

import hashlib
import tarfile
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from indexes import npy

BLOCK = 512


class HashedTar:
    """A tar stream with USTAR headers (PAX if a name is too long) and a running sha256."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.size, self.sha256 = file, 0, hashlib.sha256()

    def _put(self, data: bytes) -> None:
        self.file.write(data)
        self.sha256.update(data)
        self.size += len(data)

    def add(self, name: str, data: bytes) -> int:
        """Append a member with mtime 0; return the byte offset of its data."""
        info = tarfile.TarInfo(name)
        info.size = len(data)
        try:
            header = info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
        except ValueError:
            header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        self._put(header)
        offset = self.size
        self._put(data + bytes(-len(data) % BLOCK))
        return offset

    def close(self) -> None:
        """End the archive with two zero blocks."""
        self._put(bytes(2 * BLOCK))


def npy_rows(rows: npt.NDArray[Any]) -> list[bytes]:
    """Return each row of [n, K] as the bytes of a .npy file of shape [K]."""
    prefix = npy.header(rows.shape[1:], rows.dtype)
    return [prefix + row.tobytes() for row in np.ascontiguousarray(rows)]
