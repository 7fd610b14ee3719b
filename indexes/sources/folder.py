"""A folder tree of image files as parts of at most 10,000 files, local or behind a URL."""

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
    """Images below `root` by their sorted relative paths; a file's number is its offset."""

    name: str
    root: str
    files: tuple[str, ...]
    random_access: bool = True

    def fingerprint(self) -> str:
        """sha256 over relative path, size and mtime (etag) of every file."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(
                f"{file}\0{filesystem.identity(self._location(file))}\n".encode("utf-8", "replace")
            )
        return digest.hexdigest()

    def _location(self, file: str) -> str:
        return f"{self.root}/{file}"

    def __iter__(self) -> Iterator[Sample]:
        """One sample a file; its parent folder's name is the extra `cls`.

        Files that cannot be read are reported at the end, once all the others were yielded.
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
                f"{self.name}: {len(unread)} of {len(self.files)} files cannot be read, the first "
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
        """The file numbered `offset`; SourceError when it is not `size` bytes any more."""
        if offset >= len(self.files):
            raise SourceError(f"{self.name}: has no file number {offset} (key {key!r}) any more")
        try:
            data = self._read(self.files[offset])
        except OSError as error:
            raise SourceError(f"{self.name}: {self.files[offset]}: {error}") from None
        if len(data) != size:
            raise SourceError(f"{self.name}: {self.files[offset]} is not {size:,} bytes any more")
        return data


def folder_parts(root: str) -> Iterator[tuple[str, str, list[str]]]:
    """(path that names it, folder, relative image paths) of every part of a tree.

    Parts: the loose images, then each immediate sub-folder in sorted order; a part of more than
    MAX_FILES is split. Hidden files and files that are no images are left out.
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
