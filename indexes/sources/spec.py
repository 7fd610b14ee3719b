"""Corpus specifications: paths, globs, braces, folders, tars, Parquet files and URLs to parts."""

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
from indexes.sources.tar import TARS, TarPart, nested_tars

__all__ = ["DamagedPart", "Part", "Sample", "SourceError", "open_labeled", "open_parts"]

PARQUET = (".parquet",)
KINDS = "a tar (.tar, .tar.gz, .tgz), a Parquet file, a folder of these or of images, or a URL"


def open_parts(spec: str) -> list[Part]:
    """Return the parts that `spec` names, in the order of the spec; each file occurs once.

    `spec` lists one or several sources, separated by commas or spaces: a tar (.tar, .tar.gz, .tgz),
    a local tar of tars, a Parquet file, a folder of any of these or of images, a glob or brace of
    them, or an fsspec URL (s3://, https://, ...). The files of one source are sorted. Raises
    SourceError if there is no image source there.

    Example: `open_parts("/data/{00000..00003}.tar")[0].name`
    """
    if not spec.strip():
        raise SourceError(f"no image source is given: name {KINDS}")
    parts: dict[str, Part] = {}
    for pattern in _patterns(spec):
        for location, part in _parts_of(pattern):
            parts.setdefault(location, part)
    if not parts:
        raise SourceError(f"{spec}: there is no image source there: name {KINDS}")
    names = unique_names([filesystem.path_of(location) for location in parts])
    named = [_named(part, name) for part, name in zip(parts.values(), names, strict=True)]
    tables = [part for part in named if isinstance(part, ParquetPart)]
    if tables:
        tables[0].check()  # report a wrong column now, rather than hours later for each part
    return named


def _named(part: Part, name: str) -> Part:
    assert isinstance(part, TarPart | FolderPart | ParquetPart)
    return dataclasses.replace(part, name=name)


def _patterns(spec: str) -> list[str]:
    """The sources of a list. Commas and spaces within braces or an existing path do not split."""
    if os.path.exists(filesystem.local(spec)):
        return [spec]
    return re.findall(r"(?:\{[^{}]*\}|[^,\s])+", spec)


def _parts_of(piece: str) -> Iterator[tuple[str, Part]]:
    """(location, part) of everything that one source of the list names."""
    import braceexpand

    if piece.startswith("pipe:"):
        raise SourceError(f"{piece}: winnow runs no shell command to read data: name {KINDS}")
    piece = filesystem.local(piece)
    expanded = [piece]
    if "{" in piece and not os.path.exists(piece):
        try:
            expanded = list(braceexpand.braceexpand(piece))
        except ValueError as error:
            raise SourceError(f"{piece}: {error}; write a range as {{000..012}}") from None
    matched = [location for pattern in expanded for location in filesystem.matches(pattern)]
    # Some files of a range may be missing: they become parts that report it when they are read.
    missing = [
        location
        for location in matched
        if not filesystem.is_url(location) and not os.path.exists(location)
    ]
    if not matched:
        raise SourceError(f"{filesystem.redacted(piece)}: no file matches this pattern")
    if len(missing) == len(matched):
        raise SourceError(f"{piece}: no such file or folder{_nearest(missing[0])}")
    for location in matched:
        yield from _parts_at(location)


def _nearest(path: str) -> str:
    """A hint: the entry of the path's folder whose name is most similar, if there is one."""
    folder, base = os.path.split(path.rstrip("/"))
    if not os.path.isdir(folder or "."):
        return f" (there is no folder {folder})"
    close = difflib.get_close_matches(base, os.listdir(folder or "."), n=1)
    return f". Did you mean {os.path.join(folder, close[0])}?" if close else ""


def _parts_at(location: str) -> Iterator[tuple[str, Part]]:
    """(location, part) of one file or folder."""
    lower = filesystem.path_of(location).lower()
    is_folder = not lower.endswith((*TARS, *PARQUET)) and filesystem.is_folder(location)
    if is_folder or (not filesystem.is_url(location) and os.path.isdir(location)):
        yield from _folder(location)
    elif lower.endswith(TARS):
        nested = nested_tars(location) if os.path.isfile(location) else None
        if nested is None:
            yield location, TarPart("", location)
        for name, start, stop in nested or []:
            yield f"{location}/{name}", TarPart("", location, start, stop)
    elif lower.endswith(PARQUET):
        yield location, ParquetPart("", location)
    else:
        raise SourceError(
            f"{filesystem.redacted(location)}: this is not a supported source: name {KINDS}"
        )


def _folder(folder: str) -> Iterator[tuple[str, Part]]:
    """A folder's own tars, else its Parquet files, else the images below, else archives below."""
    folder = folder.rstrip("/") or "/"
    _, files = filesystem.children(folder)
    archives = _archives(files)
    if not archives:
        has_images = False
        for name, root, paths in folder_parts(folder):
            has_images = True
            yield name, FolderPart("", root, tuple(paths))
        archives = [] if has_images else _archives(filesystem.walk(folder))
        if not has_images and not archives:
            raise SourceError(f"{folder}: this folder holds no tar, no Parquet file and no image")
    for name in archives:
        yield from _parts_at(f"{folder}/{name}")


def _archives(files: Sequence[str] | Iterator[str]) -> list[str]:
    names = list(files)
    tars = [name for name in names if name.lower().endswith(TARS)]
    return tars or [name for name in names if name.lower().endswith(PARQUET)]


def open_labeled(spec: str, classes: Sequence[str]) -> Iterator[tuple[Sample, int]]:
    """Yield every sample of `spec` with its class index, read from `cls` or `json`.

    `cls` holds a class name or an index. `json` holds an object with `label` or `cls`. A class name
    takes precedence over an index with the same text. Raises SourceError for a sample without
    image, without label, or with a label that is neither a class name nor a valid index.
    """
    counts = Counter(classes)  # classes that share a name can be named by index only
    indices = {name: index for index, name in enumerate(classes) if counts[name] == 1}
    for part in open_parts(spec):
        for sample in part:
            where = f"{part.name}: {sample.key!r}"
            if not sample.ext:
                raise SourceError(f"{where} has no image: a labeled set needs one for every key")
            yield sample, _index(_label(sample, where), indices, len(classes), where)


def _label(sample: Sample, where: str) -> str:
    if "cls" in sample.extras:
        return sample.extras["cls"].decode("utf-8", "replace").strip()
    if "json" in sample.extras:
        try:
            record = json.loads(sample.extras["json"])
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{where}: its .json file is not valid JSON ({error})") from None
        if isinstance(record, dict):
            for name in ("label", "cls"):
                if name in record:
                    return str(record[name])
    raise SourceError(
        f"{where} has no label: put one beside it as .cls (index or class name), as `label` in "
        "its .json, or in a Parquet column `label`; or name its folder after the class"
    )


def _index(label: str, indices: dict[str, int], num_classes: int, where: str) -> int:
    if label in indices:
        return indices[label]
    if re.fullmatch(r"[0-9]{1,9}", label) and int(label) < num_classes:
        return int(label)
    close = difflib.get_close_matches(label, indices, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise SourceError(
        f"{where}: label {label!r} is neither one of the {num_classes} class names nor an index "
        f"below that number.{hint}"
    )
