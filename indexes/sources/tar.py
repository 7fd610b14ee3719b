"""Tars as parts: plain, gzipped, behind a URL, or many inside one."""

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
# A read that covers a header with a long name, when only headers are wanted.
HEADERS_BYTES = 4096


class _Descriptor:
    """An open file that closes when nobody reads from it any more."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if hasattr(self, "number"):
            close(self.number)


@functools.lru_cache(maxsize=128)
def _descriptor(path: str, identity: tuple[int, int, int]) -> _Descriptor:
    return _Descriptor(path)


def descriptor(path: str) -> _Descriptor:
    """A cached descriptor for positional reads: no cursor, so threads and forks may share it."""
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
    """A tar (gzipped by its suffix), or the one at bytes [start, stop) of an outer local tar."""

    name: str
    location: str
    start: int = 0
    stop: int | None = None

    @property
    def is_gzipped(self) -> bool:
        """Whether it is gzipped: then it is only ever streamed."""
        return self.stop is None and filesystem.path_of(self.location).lower().endswith(
            (".gz", ".tgz")
        )

    @property
    def random_access(self) -> bool:
        """A plain tar on a local disk can be read at any offset."""
        return not self.is_gzipped and not filesystem.is_url(self.location)

    def fingerprint(self) -> str:
        """Size and mtime of the file (etag of a URL), and the window in it."""
        window = "" if self.stop is None else f"-{self.start}-{self.stop}"
        return filesystem.identity(self.location) + window

    @contextmanager
    def stream(self) -> Iterator[Stream]:
        """The tar's bytes from its start; DamagedPart when the file is not there."""
        try:
            with filesystem.opened(self.location) as file:
                if self.is_gzipped:
                    with gzip.GzipFile(fileobj=file) as unpacked:
                        # read() would lose what it has when it meets the end of a cut file.
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
        """Samples in the tar's order; a tar of tars behind a URL or gzip is a SourceError."""
        with self.stream() as stream:
            try:
                for sample in samples(stream):
                    if not sample.ext and "tar" in sample.extras:
                        raise SourceError(
                            f"{self.name}: a tar of tars can only be read unpacked, from a local "
                            "disk: gunzip or download it first"
                        )
                    yield sample
            except Damage as damage:
                raise DamagedPart(f"{self.name}: {damage}", transient=stream.transient) from None

    def fetch(self, key: str, offset: int, size: int) -> bytes:
        """`size` bytes at `offset` of the tar; SourceError when it ends before."""
        file = descriptor(self.location)  # this reference keeps it open while it is read
        data = os.pread(file.number, size, self.start + offset)
        if len(data) != size:
            raise SourceError(f"{self.name}: ends before the {size:,} bytes of {key!r}")
        return data


def nested_tars(location: str) -> list[tuple[str, int, int]] | None:
    """(name, start, stop) of the tars in a local tar of tars, else None; only headers are read.

    A damaged outer tar ends in a window at the damage, so that reading it says so. SourceError
    when the inner or the outer ones are gzipped: there is no random access to them.
    """
    first = _first_member(location)
    if not first.endswith(TARS):
        return None
    if first.endswith((".gz", ".tgz")) or location.lower().endswith((".gz", ".tgz")):
        raise SourceError(
            f"{location} is a gzipped tar of tars (or one of gzipped tars), which cannot be read "
            f"in pieces: unpack it first (gunzip {os.path.basename(location)}, or tar -xf)"
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
    """The lower-case name of a local tar's first regular member, "" when there is none."""
    with open(location, "rb") as file:
        is_gzipped = location.lower().endswith((".gz", ".tgz"))
        source = gzip.GzipFile(fileobj=file) if is_gzipped else file
        try:
            stream = Stream(source.read1, chunk_bytes=HEADERS_BYTES)
            return next((name.lower() for name, *_ in members(stream, with_data=False)), "")
        except Damage:
            return ""
