"""Where images come from: a path, glob, brace, folder, tar, Parquet or URL becomes parts."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from indexes.sources import filesystem
from indexes.sources.folder import FolderPart, folder_parts
from indexes.sources.parquet import ParquetPart
from indexes.sources.sample import DamagedPart, Part, Sample, SourceError, unique_names
from indexes.sources.tar import TARS, TarPart, inner_tars

__all__ = ["DamagedPart", "Part", "Sample", "SourceError", "open_labeled", "open_parts"]

PARQUET = (".parquet",)
KINDS = "a tar (.tar, .tar.gz, .tgz), a Parquet file, a folder of these or of images, or a URL"


def open_parts(spec: str) -> list[Part]:
    """The parts that `spec` names, each file once, in the order of the spec, sorted within.

    `spec`: one or several (separated by commas or spaces) of: a tar, .tar.gz or .tgz, a local tar
    of tars, a Parquet file, a folder of any of these or of images, a glob or brace of them, or an
    fsspec URL (s3://, https://, ...). Raises SourceError when there is nothing to read.
    """
    if not spec.strip():
        raise SourceError(f"no source given; name {KINDS}")
    found: dict[str, Part] = {}
    for piece in _pieces(spec):
        for place, part in _piece(piece):
            found.setdefault(place, part)
    if not found:
        raise SourceError(f"{spec}: nothing to read there; name {KINDS}")
    names = unique_names([filesystem.path_of(place) for place in found])
    named = [_named(part, name) for part, name in zip(found.values(), names, strict=True)]
    tables = [part for part in named if isinstance(part, ParquetPart)]
    if tables:
        tables[0].check()  # a wrong column is told now, not once a part hours later
    return named


def _named(part: Part, name: str) -> Part:
    assert isinstance(part, TarPart | FolderPart | ParquetPart)
    return dataclasses.replace(part, name=name)


def _pieces(spec: str) -> list[str]:
    """The members of a list; commas and spaces within braces or an existing path do not split."""
    if os.path.exists(filesystem.local(spec)):
        return [spec]
    return [piece for piece in re.findall(r"(?:\{[^{}]*\}|[^,\s])+", spec) if piece]


def _piece(piece: str) -> Iterator[tuple[str, Part]]:
    import braceexpand

    if piece.startswith("pipe:"):
        raise SourceError(f"{piece}: no command is ever run; name {KINDS}")
    piece = filesystem.local(piece)
    expanded = [piece]
    if "{" in piece and not os.path.exists(piece):
        try:
            expanded = list(braceexpand.braceexpand(piece))
        except ValueError as error:
            raise SourceError(f"{piece}: {error}; a range is written {{000..012}}") from None
    matched = [place for pattern in expanded for place in filesystem.matches(pattern)]
    # Of a range some files may be missing: they become parts that say so when they are read.
    missing = [
        place for place in matched if not filesystem.is_url(place) and not os.path.exists(place)
    ]
    if not matched:
        raise SourceError(f"{filesystem.redacted(piece)}: matches nothing")
    if len(missing) == len(matched):
        raise SourceError(f"{piece}: no such file or folder{_nearest(missing[0])}")
    for place in matched:
        yield from _place(place)


def _nearest(path: str) -> str:
    """What the longest existing folder of `path` holds that resembles it."""
    folder, base = os.path.split(path.rstrip("/"))
    if not os.path.isdir(folder or "."):
        return f" (there is no folder {folder})"
    close = difflib.get_close_matches(base, os.listdir(folder or "."), n=1)
    return f". Did you mean {os.path.join(folder, close[0])}?" if close else ""


def _place(place: str) -> Iterator[tuple[str, Part]]:
    """(identifying path, part) of one file or folder."""
    lower = filesystem.path_of(place).lower()
    folder = not lower.endswith((*TARS, *PARQUET)) and filesystem.is_folder(place)
    if folder or (not filesystem.is_url(place) and os.path.isdir(place)):
        yield from _folder(place)
    elif lower.endswith(TARS):
        inner = inner_tars(place) if os.path.isfile(place) else None
        if inner is None:
            yield place, TarPart("", place)
        for name, start, stop in inner or []:
            yield f"{place}/{name}", TarPart("", place, start, stop)
    elif lower.endswith(PARQUET):
        yield place, ParquetPart("", place)
    else:
        raise SourceError(
            f"{filesystem.redacted(place)}: neither a folder nor read as a file; name {KINDS}"
        )


def _folder(folder: str) -> Iterator[tuple[str, Part]]:
    """A folder's own tars, else its Parquet files, else its tree's images, else deeper archives."""
    folder = folder.rstrip("/") or "/"
    _, files = filesystem.children(folder)
    archives = _archives(files)
    if not archives:
        images = False
        for name, root, paths in folder_parts(folder):
            images = True
            yield name, FolderPart("", root, tuple(paths))
        archives = [] if images else _archives(filesystem.walk(folder))
        if not images and not archives:
            raise SourceError(f"{folder}: holds no tar, no Parquet file and no image")
    for name in archives:
        yield from _place(f"{folder}/{name}")


def _archives(files: Sequence[str] | Iterator[str]) -> list[str]:
    names = list(files)
    found = [name for name in names if name.lower().endswith(TARS)]
    return found or [name for name in names if name.lower().endswith(PARQUET)]


def open_labeled(spec: str, classes: Sequence[str]) -> Iterator[tuple[Sample, int]]:
    """Every sample of `spec` with its class index, from `cls` (class name or index) or `json`.

    The JSON is an object with `label` or `cls`. A class's name wins over a number that reads the
    same. Raises SourceError for a sample without image or label, or with one out of range.
    """
    times = Counter(classes)  # a name that two classes bear does not say which: only an index does
    indices = {name: index for index, name in enumerate(classes) if times[name] == 1}
    for part in open_parts(spec):
        for sample in part:
            where = f"{part.name}: {sample.key!r}"
            if not sample.ext:
                raise SourceError(f"{where} has no image; a labeled set has one for every key")
            yield sample, _index(_stated(sample, where), indices, len(classes), where)


def _stated(sample: Sample, where: str) -> str:
    if "cls" in sample.extras:
        return sample.extras["cls"].decode("utf-8", "replace").strip()
    if "json" in sample.extras:
        try:
            record = json.loads(sample.extras["json"])
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{where}: its json is not JSON ({error})") from None
        if isinstance(record, dict):
            for name in ("label", "cls"):
                if name in record:
                    return str(record[name])
    raise SourceError(
        f"{where} has no label: put one beside it as .cls (index or class name), as `label` in "
        "its .json, in a Parquet column `label`, or name its folder after the class"
    )


def _index(stated: str, indices: dict[str, int], num_classes: int, where: str) -> int:
    if stated in indices:
        return indices[stated]
    if re.fullmatch(r"[0-9]{1,9}", stated) and int(stated) < num_classes:
        return int(stated)
    close = difflib.get_close_matches(stated, indices, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise SourceError(
        f"{where}: label {stated!r} is none of the {num_classes} classes nor an index below "
        f"that.{hint}"
    )
