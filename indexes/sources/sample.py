"""The protocol of every source of images: Sample, Part, their errors and the rules for keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

READ = {"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm"}
# The second set cannot be decoded. It is listed so that every such image is counted as dropped.
IMAGES = frozenset(READ | {"heic", "heif", "avif", "jp2", "jxl", "svg", "psd", "ico"})


class SourceError(ValueError):
    """A source is missing, empty or of an unsupported kind."""


class DamagedPart(SourceError):
    """A part ended early; every whole sample before the damage has been yielded.

    `lost`: the number of samples known to be lost, at least one. `transient`: reading failed (a
    store, a disk) rather than the file itself, so another attempt may succeed.
    """

    def __init__(self, what: str, *, lost: int = 1, transient: bool = False) -> None:
        super().__init__(what)
        self.lost, self.transient = lost, transient


@dataclass(frozen=True, slots=True)
class Sample:
    """The encoded bytes of one image, and the other files of the same key.

    `ext`: the last suffix of the image in lower case ("jpg"), or "" if the key has no image.
    `offset`: the position at which a part finds the image again (bytes in a tar, index in a folder,
    row in a Parquet file). `extras`: the other members of the key by their suffix in lower case
    ("cls", "json").
    """

    key: str
    ext: str
    data: bytes
    offset: int
    extras: dict[str, bytes]


class Part(Protocol):
    """A piece of a corpus that one worker reads from start to end; it can be pickled."""

    @property
    def name(self) -> str:
        """A stable relative name, unique in its corpus; artifacts record it."""

    @property
    def random_access(self) -> bool:
        """Whether `fetch` is cheap in any order of offsets."""

    def fingerprint(self) -> str:
        """Return a cheap identifier of the content, which changes when the files change."""

    def __iter__(self) -> Iterator[Sample]:
        """Yield samples in a fixed order.

        Raises DamagedPart at damage, after every whole sample before it.
        """

    def fetch(self, key: str, offset: int, size: int) -> bytes:
        """Return the `size` bytes of the image at `offset`; only if `random_access` is true."""


def suffix(name: str) -> str:
    """Return the last suffix of a path's base name in lower case, or "" if there is none.

    Example:
        >>> suffix("cats/tom.v2.JPG"), suffix(".hidden")
        ('jpg', '')
    """
    stem, dot, last = name.rpartition("/")[2].rpartition(".")
    return last.lower() if dot and stem else ""


def plain_key(path: str) -> str:
    """Return a key for an image's path that stock webdataset reads back unchanged.

    The key has no suffix and no dot in its base name. It cannot leave the folder that a tar is
    unpacked in, even if the path (from an untrusted table, for example) points outside.

    Example:
        >>> plain_key("../cats/tom.v2.jpg")
        'cats/tom_v2'
    """
    pieces = [piece for piece in path.split("/") if piece not in ("", ".", "..")]
    if not pieces:
        return ""
    base = pieces[-1]
    stem = base.rpartition(".")[0] if suffix(base) in IMAGES else base
    return "/".join([*pieces[:-1], stem.replace(".", "_")])


def text_key(key: str) -> str:
    r"""Return a key as valid UTF-8 text; the bytes of a tar's name that are not UTF-8 are escaped.

    Example:
        >>> text_key("caf\udce9")
        'caf\\udce9'
    """
    return key.encode("utf-8", "backslashreplace").decode()


def contained_key(key: str) -> str:
    """Return a tar member's key without parts that lead out of the folder a tar is unpacked in.

    Example:
        >>> contained_key("/../cats/./tom")
        'cats/tom'
    """
    return "/".join(piece for piece in key.split("/") if piece not in ("", ".", ".."))


def unique_names(paths: list[str]) -> list[str]:
    """Return each path's base name, with as many parent folders as make it unique.

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
