"""The directory of an export: which files may be replaced, and whether it is complete."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.exporters import formats, quantize
from indexes import artifact
from indexes.artifact import CARD, ArtifactError

MODEL_CARD = "MODEL_CARD.md"
NEW_PREFIX = ".new-"  # of the temporary directory of an export in progress
NAMES = (CARD, *formats.FILES.values(), quantize.FILE, MODEL_CARD)


def check_replaceable(directory: Path) -> None:
    """Raise ArtifactError if `directory` holds anything other than an export."""
    if artifact.is_done(directory):
        kind = artifact.read_json(directory / CARD).get("kind")
        if kind != "export":
            raise ArtifactError(
                f"{directory} holds {kind!r}, not an export: choose another directory with --out"
            )
    elif directory.exists():
        if not directory.is_dir():
            raise ArtifactError(f"{directory} is a file: choose a directory with --out")
        names = sorted(path.name for path in directory.iterdir())
        foreign = [name for name in names if name not in NAMES and not name.startswith(".")]
        if foreign:
            raise ArtifactError(
                f"{directory} is not an export and not empty (it holds {foreign[0]}): choose "
                "another directory with --out"
            )


def is_whole(directory: Path, inputs: Mapping[str, Any]) -> bool:
    """Return whether `directory` holds an export of these inputs with every file unchanged."""
    if not artifact.is_done(directory):
        return False
    card = artifact.read_json(directory / CARD)
    if card.get("schema") != artifact.SCHEMAS["export"] or card.get("inputs") != dict(inputs):
        return False
    return all(file_entry(directory / entry["name"]) == entry for entry in card["files"])


def file_entry(path: Path) -> dict[str, Any]:
    """Return the card's entry of a file: name, bytes and sha256; only the name if it is missing."""
    if not path.is_file():
        return {"name": path.name}
    size = path.stat().st_size
    return {"name": path.name, "bytes": size, "sha256": artifact.sha256(path)}


def remove_stale(directory: Path) -> None:
    """Remove the temporary directories of exports that were killed."""
    for stale in directory.glob(f"{NEW_PREFIX}*"):
        shutil.rmtree(stale)


def replace_files(directory: Path, new: Path) -> None:
    """Replace the export in `directory` by the files in `new`.

    The previous export is removed first, its card before all other files.
    """
    for name in NAMES:
        (directory / name).unlink(missing_ok=True)
    for path in sorted(new.iterdir()):
        path.replace(directory / path.name)
