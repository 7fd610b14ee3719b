"""Where an embedded corpus and its tower lie on this machine: a note under runs, in no artifact.

An artifact names no path: it may be copied elsewhere. `winnow select` renews the note each time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from indexes import artifact
from indexes.sources import filesystem
from indexes.sources.folder import FolderPart, folder_parts
from indexes.sources.parquet import ParquetPart
from indexes.sources.sample import Part, SourceError
from indexes.sources.tar import TarPart

AGAIN = "run winnow select on the corpus where it lies now: it embeds only what has changed"


def remember(runs: Path, name: str, parts: Sequence[Part], tower: str | None) -> None:
    """Notes the places of the parts of embedding `name`, and its tower (MODEL:FILE)."""
    if tower:
        model, _, file = tower.partition(":")
        tower = f"{model}:{os.path.abspath(file)}"
    note = {"tower": tower, "parts": [_place(part) for part in parts]}
    artifact.write_json(_path(runs, name), note)


def tower(runs: Path, name: str) -> tuple[str, str]:
    """(open_clip model, weights file) of the tower of embedding `name`; SourceError without."""
    model, _, file = str(_note(runs, name).get("tower") or "").partition(":")
    if not file or not Path(file).is_file():
        raise SourceError(f"the tower of {name} is not at {file or 'any known place'}: {AGAIN}")
    return model, file


def part(runs: Path, name: str, number: int) -> Part:
    """Part `number` of the corpus of embedding `name`; SourceError when it cannot be opened."""
    kept = _note(runs, name)["parts"]
    place = kept[number] if number < len(kept) else None
    if place is None:
        raise SourceError(
            f"part {number} of {name} cannot be read again by its place: it is drawn by code, or "
            "its URL bears a secret"
        )
    if place["kind"] == "tar":
        return TarPart("", place["place"], place["start"], place["stop"])
    if place["kind"] == "parquet":
        return ParquetPart("", place["place"])
    for _, root, files in folder_parts(place["root"]):
        if files and [files[0], len(files)] == [place["first"], place["files"]]:
            return FolderPart("", root, tuple(files))
    raise SourceError(f"{place['root']}: its files are not those that were embedded; {AGAIN}")


def _path(runs: Path, name: str) -> Path:
    return runs / "whereabouts" / f"{name}.json"


def _note(runs: Path, name: str) -> dict[str, Any]:
    path = _path(runs, name)
    if not path.is_file():
        raise SourceError(f"{path} is missing, which says where the corpus lies; {AGAIN}")
    return artifact.read_json(path)


def _place(part: Part) -> dict[str, Any] | None:
    """What opens a part again, or None: an own kind of part, or a URL with a secret in it."""
    where = str(getattr(part, "root", "") or getattr(part, "place", ""))
    if filesystem.redacted(where) != where:
        return None
    where = where if filesystem.is_url(where) else os.path.abspath(where)
    if isinstance(part, TarPart):
        return {"kind": "tar", "place": where, "start": part.start, "stop": part.stop}
    if isinstance(part, ParquetPart):
        return {"kind": "parquet", "place": where}
    if isinstance(part, FolderPart) and part.files:
        return {"kind": "folder", "root": where, "first": part.files[0], "files": len(part.files)}
    return None
