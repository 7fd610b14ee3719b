"""Where an embedded corpus and its tower lie on this machine: RUNS/locations, beside artifacts.

An artifact names no path, because it may be copied elsewhere. `winnow select` rewrites the file of
a corpus each time.
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

FOLDER = "locations"
AGAIN = "run winnow select on the corpus where it lies now: it embeds only what has changed"


def save(runs: Path, name: str, parts: Sequence[Part], tower: str | None) -> None:
    """Writes the locations of the parts of embedding `name`, and of its tower (MODEL:FILE)."""
    if tower:
        model, _, file = tower.partition(":")
        tower = f"{model}:{os.path.abspath(file)}"
    body = {"tower": tower, "parts": [_location(part) for part in parts]}
    artifact.write_json(_path(runs, name), body)


def open_tower(runs: Path, name: str) -> tuple[str, str]:
    """(open_clip model, weights file) of the tower of embedding `name`; SourceError without."""
    model, _, file = str(_read(runs, name).get("tower") or "").partition(":")
    if not file or not Path(file).is_file():
        raise SourceError(f"the tower of {name} is not at {file or 'any known location'}: {AGAIN}")
    return model, file


def open_part(runs: Path, name: str, number: int) -> Part:
    """Part `number` of the corpus of embedding `name`; SourceError when it cannot be opened."""
    parts = _read(runs, name)["parts"]
    location = parts[number] if number < len(parts) else None
    if location is None:
        raise SourceError(
            f"part {number} of {name} cannot be read again: it is drawn by code, or its URL holds "
            "a secret, which is not stored"
        )
    if location["kind"] == "tar":
        return TarPart("", location["location"], location["start"], location["stop"])
    if location["kind"] == "parquet":
        return ParquetPart("", location["location"])
    for _, root, files in folder_parts(location["root"]):
        if files and [files[0], len(files)] == [location["first"], location["files"]]:
            return FolderPart("", root, tuple(files))
    raise SourceError(f"{location['root']}: its files are not those that were embedded; {AGAIN}")


def _path(runs: Path, name: str) -> Path:
    return runs / FOLDER / f"{name}.json"


def _read(runs: Path, name: str) -> dict[str, Any]:
    path = _path(runs, name)
    if not path.is_file():
        raise SourceError(f"{path} is missing, which says where the corpus lies; {AGAIN}")
    return artifact.read_json(path)


def _location(part: Part) -> dict[str, Any] | None:
    """What opens a part again; None for a part that code draws and for a URL with a secret."""
    location = str(getattr(part, "root", "") or getattr(part, "location", ""))
    if filesystem.redacted(location) != location:
        return None
    if not filesystem.is_url(location):
        location = os.path.abspath(location)
    if isinstance(part, TarPart):
        return {"kind": "tar", "location": location, "start": part.start, "stop": part.stop}
    if isinstance(part, ParquetPart):
        return {"kind": "parquet", "location": location}
    if isinstance(part, FolderPart) and part.files:
        first, count = part.files[0], len(part.files)
        return {"kind": "folder", "root": location, "first": first, "files": count}
    return None
