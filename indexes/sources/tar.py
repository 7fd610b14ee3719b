"""Tars as parts: plain, gzipped, behind a URL, or nested in an outer tar."""

from __future__ import annotations

import functools
import gzip
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from indexes.sources import filesystem
from indexes.sources.sample import DamagedPart, Sample, SourceError
from indexes.sources.tar_reader import Damage, Stream, members, samples

TARS = (".tar", ".tar.gz", ".tgz")
# The size of a read that covers a header with a long name, if only headers are needed.
HEADERS_BYTES = 4096


class _Descriptor:
    """An open file that closes when the last reference to it is dropped."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if hasattr(self, "number"):
            close(self.number)


@functools.lru_cache(maxsize=128)
def _descriptor(path: str, identity: tuple[int, int, int]) -> _Descriptor:
    return _Descriptor(path)


def descriptor(path: str) -> _Descriptor:
    """Return a cached file descriptor for positional reads.

    It uses no file cursor, so threads and forked processes may share it.
    """
    status = os.stat(path)
    return _descriptor(path, (status.st_ino, status.st_size, status.st_mtime_ns))


def _window(file: BinaryIO, left: int) -> Callable[[int], bytes]:
    """A read function that ends after `left` bytes."""

    def read(size: int) -> bytes:
        nonlocal left
        data = file.read(min(size, left))
        left -= len(data)
        return data

    return read


@dataclass(frozen=True)
class TarPart:
    """A tar (gzipped if its suffix says so), or the one at bytes start..stop of a local tar."""

    name: str
    location: str
    start: int = 0
    stop: int | None = None

    @property
    def is_gzipped(self) -> bool:
        """Whether the tar is gzipped; a gzipped tar can only be streamed."""
        return self.stop is None and filesystem.path_of(self.location).lower().endswith(
            (".gz", ".tgz")
        )

    @property
    def random_access(self) -> bool:
        """Whether the tar can be read at any offset: it is not gzipped and on a local disk."""
        return not self.is_gzipped and not filesystem.is_url(self.location)

    def fingerprint(self) -> str:
        """Return size and mtime of the file (ETag of a URL), and the byte range within it."""
        window = "" if self.stop is None else f"-{self.start}-{self.stop}"
        return filesystem.identity(self.location) + window

    @contextmanager
    def stream(self) -> Iterator[Stream]:
        """Open the tar's bytes from its start.

        Raises DamagedPart if the file is missing.
        """
        try:
            with filesystem.opened(self.location) as file:
                if self.is_gzipped:
                    with gzip.GzipFile(fileobj=file) as unpacked:
                        # At the end of a truncated file read() would lose the bytes it has read.
                        yield Stream(unpacked.read1)
                elif self.stop is not None:
                    file.seek(self.start)
                    yield Stream(_window(file, self.stop - self.start))
                else:
                    yield Stream(file.read)
        except FileNotFoundError:
            raise DamagedPart(
                f"{self.name}: no such file: {filesystem.redacted(self.location)}"
            ) from None

    def __iter__(self) -> Iterator[Sample]:
        """Yield samples in the order of the tar.

        Raises DamagedPart at damage, after every whole sample before it, and SourceError for a tar
        of tars that is gzipped or behind a URL.
        """
        with self.stream() as stream:
            try:
                for sample in samples(stream):
                    if not sample.ext and "tar" in sample.extras:
                        raise SourceError(
                            f"{self.name}: a tar of tars can only be read uncompressed and from a "
                            "local disk: gunzip or download it first"
                        )
                    yield sample
            except Damage as damage:
                raise DamagedPart(f"{self.name}: {damage}", transient=stream.transient) from None

    def fetch(self, key: str, offset: int, size: int) -> bytes:
        """Return the `size` bytes at `offset` of the tar.

        Raises SourceError if the tar ends before that.
        """
        file = descriptor(self.location)  # this reference keeps the file open during the read
        data = os.pread(file.number, size, self.start + offset)
        if len(data) != size:
            raise SourceError(f"{self.name}: the tar ends before the {size:,} bytes of {key!r}")
        return data


def nested_tars(location: str) -> list[tuple[str, int, int]] | None:
    """Return (name, start, stop) of the tars in a local tar of tars, or None for any other tar.

    Only headers are read. For a damaged outer tar, the last item covers the damage, so that reading
    it reports the damage. Raises SourceError if the inner tars or the outer tar are gzipped,
    because gzip allows no random access.
    """
    first = _first_member(location)
    if not first.endswith(TARS):
        return None
    if first.endswith((".gz", ".tgz")) or location.lower().endswith((".gz", ".tgz")):
        raise SourceError(
            f"{location} is a gzipped tar of tars (or a tar of gzipped tars), which allows no "
            f"random access: unpack it first (gunzip {os.path.basename(location)}, or tar -xf)"
        )
    tars: list[tuple[str, int, int]] = []
    with open(location, "rb") as file:
        try:
            for name, start, size, _ in members(
                Stream(file.read, file.seek, HEADERS_BYTES), with_data=False
            ):
                if name.lower().endswith(".tar"):
                    tars.append((name, start, start + size))
        except Damage as damage:
            end = max(os.path.getsize(location), damage.position)
            tars.append((f"damage-at-{damage.position}", damage.position, end))
    return tars


def _first_member(location: str) -> str:
    """The name of a local tar's first regular member in lower case, or "" if there is none."""
    with open(location, "rb") as file:
        is_gzipped = location.lower().endswith((".gz", ".tgz"))
        source = gzip.GzipFile(fileobj=file) if is_gzipped else file
        try:
            stream = Stream(source.read1, chunk_bytes=HEADERS_BYTES)
            return next((name.lower() for name, *_ in members(stream, with_data=False)), "")
        except Damage:
            return ""
