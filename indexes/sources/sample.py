"""The protocol of every source of images: Sample, Part, their errors, the naming of keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

READ = {"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm"}
# The second set cannot be read; it is looked at so that each such image is a counted drop.
IMAGES = frozenset(READ | {"heic", "heif", "avif", "jp2", "jxl", "svg", "psd", "ico"})


class SourceError(ValueError):
    """A source that is missing, empty or of a kind that is not read."""


class DamagedPart(SourceError):
    """A part that broke off; every whole sample before the damage was yielded.

    lost: samples known to be lost, at least one. transient: the reading failed (a store, a disk),
    not the file: another try may go better.
    """

    def __init__(self, what: str, *, lost: int = 1, transient: bool = False) -> None:
        super().__init__(what)
        self.lost, self.transient = lost, transient


@dataclass(frozen=True, slots=True)
class Sample:
    """One image's own bytes and what lies beside it.

    ext: lower-case last suffix of the image ("jpg"), "" when the key has no image. offset: where
    a part finds it again (bytes in a tar, number in a folder, row in Parquet). extras: the other
    members of the key by their lower-case suffix ("cls", "json").
    """

    key: str
    ext: str
    data: bytes
    offset: int
    extras: dict[str, bytes]


class Part(Protocol):
    """A piece of a corpus that one worker reads from end to end; picklable."""

    @property
    def name(self) -> str:
        """Stable and relative, unique in its corpus: recorded in artifacts."""

    @property
    def random_access(self) -> bool:
        """Whether `fetch` is cheap in any order."""

    def fingerprint(self) -> str:
        """A cheap identity of the content: it changes when the files do."""

    def __iter__(self) -> Iterator[Sample]:
        """Samples in a fixed order; DamagedPart once every whole one before was yielded."""

    def fetch(self, key: str, offset: int, size: int) -> bytes:
        """The `size` bytes of the image at `offset`; only where `random_access`."""


def suffix(name: str) -> str:
    """The lower-case last suffix of a path's base name, "" without one."""
    stem, dot, last = name.rpartition("/")[2].rpartition(".")
    return last.lower() if dot and stem else ""


def plain_key(path: str) -> str:
    """An image's path as a key that stock webdataset reads back: no suffix, no dots in its name.

    It stays within its folder, wherever the path (of a stranger's table, say) points to.
    """
    pieces = [piece for piece in path.split("/") if piece not in ("", ".", "..")]
    if not pieces:
        return ""
    base = pieces[-1]
    stem = base.rpartition(".")[0] if suffix(base) in IMAGES else base
    return "/".join([*pieces[:-1], stem.replace(".", "_")])


def text_key(key: str) -> str:
    """A key as text that UTF-8 can hold: bytes of a tar's name that it cannot are spelt out."""
    return key.encode("utf-8", "backslashreplace").decode()


def contained_key(key: str) -> str:
    """A tar member's key without a way out of the folder that a tar is unpacked in."""
    return "/".join(piece for piece in key.split("/") if piece not in ("", ".", ".."))


def unique_names(paths: list[str]) -> list[str]:
    """Each path's base name with as many parent folders as set it apart from the others.

    Example:
        >>> unique_names(["a/x.tar", "b/x.tar", "y.tar"])
        ['a/x.tar', 'b/x.tar', 'y.tar']
    """
    pieces = [[piece for piece in path.split("/") if piece] for path in paths]
    depth, names = [1] * len(paths), [""] * len(paths)
    clashing = list(range(len(paths)))
    while clashing:
        for row in clashing:
            names[row] = "/".join(pieces[row][-depth[row] :])
        counts: dict[str, int] = {}
        for name in names:
            counts[name] = counts.get(name, 0) + 1
        clashing = [
            row
            for row, name in enumerate(names)
            if counts[name] > 1 and depth[row] < len(pieces[row])
        ]
        for row in clashing:
            depth[row] += 1
    return names
