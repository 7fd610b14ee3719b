"""Folder trees of image files, local or behind a URL, read as parts of at most 10,000 files."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

from indexes.sources import filesystem
from indexes.sources.sample import IMAGES, DamagedPart, Sample, SourceError, plain_key, suffix

MAX_FILES = 10_000


@dataclass(frozen=True)
class FolderPart:
    """Images below `root`, in the order of `files` (relative paths); an offset is an index."""

    name: str
    root: str
    files: tuple[str, ...]
    random_access: bool = True

    def fingerprint(self) -> str:
        """Return a sha256 over relative path, size and mtime (or ETag) of every file."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(
                f"{file}\0{filesystem.identity(self._location(file))}\n".encode("utf-8", "replace")
            )
        return digest.hexdigest()

    def _location(self, file: str) -> str:
        return f"{self.root}/{file}"

    def __iter__(self) -> Iterator[Sample]:
        """Yield one sample per file; the name of its parent folder is the extra `cls`.

        Raises DamagedPart at the end, after all other files, if some files cannot be read.
        """
        unread: list[str] = []
        seen: set[str] = set()
        for number, file in enumerate(self.files):
            try:
                data = self._read(file)
            except OSError as error:
                unread.append(f"{file}: {error}")
                continue
            folder = os.path.dirname(self._location(file)).rpartition("/")[2]
            key = plain_key(file)
            if key in seen:  # a.jpg beside a.png, or a.b.jpg beside a_b.jpg
                key = f"{key}-{number}"
            seen.add(key)
            yield Sample(
                key=key,
                ext=suffix(file),
                data=data,
                offset=number,
                extras={"cls": folder.encode("utf-8", "surrogateescape")},
            )

        if unread:
            raise DamagedPart(
                f"{self.name}: {len(unread)} of {len(self.files)} files cannot be read; the first "
                f"is {unread[0]}",
                lost=len(unread),
            )

    def _read(self, file: str) -> bytes:
        if filesystem.is_url(self.root):
            system, path = filesystem.filesystem(self._location(file))
            return bytes(system.cat_file(path))
        with open(self._location(file), "rb") as stream:
            return stream.read()

    def fetch(self, key: str, offset: int, size: int) -> bytes:
        """Return the bytes of the file with index `offset`.

        Raises SourceError if it is missing, unreadable, or no longer `size` bytes long.
        """
        if offset >= len(self.files):
            raise SourceError(f"{self.name}: there is no longer a file {offset} (key {key!r})")
        try:
            data = self._read(self.files[offset])
        except OSError as error:
            raise SourceError(f"{self.name}: {self.files[offset]}: {error}") from None
        if len(data) != size:
            raise SourceError(f"{self.name}: {self.files[offset]} is no longer {size:,} bytes long")
        return data


def folder_parts(root: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield (path that names the part, root, relative image paths) of every part of a tree.

    The images directly in `root` form the first part. Each immediate sub-folder, in sorted order,
    forms another. A part of more than MAX_FILES files is split. Hidden files and files that are not
    images are skipped.
    """
    root = root.rstrip("/") or "/"
    folders, files = filesystem.children(root)
    groups = itertools.chain(
        [(root, iter(files))],
        (
            (f"{root}/{folder}", filesystem.walk(f"{root}/{folder}", folder + "/"))
            for folder in folders
        ),
    )
    for name, paths in groups:
        images = [path for path in paths if suffix(path) in IMAGES]
        for start in range(0, len(images), MAX_FILES):
            split = f"/{start // MAX_FILES:05d}" if len(images) > MAX_FILES else ""
            yield name + split, root, images[start : start + MAX_FILES]
