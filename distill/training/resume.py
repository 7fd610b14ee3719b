"""What an earlier training left in a directory: to be taken up, or of other settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from indexes import artifact, checkpoint
from indexes.checkpoint import LOG


def finished_or_refused(directory: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether `directory` holds a student trained from exactly `inputs`.

    Raises ArtifactError for a finished student of other inputs, saying what differs.
    """
    if not artifact.is_done(directory):
        return False
    record = artifact.read_card(directory, "teacher").get("record") or {}
    refuse_others(directory, record.get("inputs"), inputs)
    checkpoint.remove(directory)
    return True


def forget(directory: Path) -> None:
    """Removes what an earlier training left: card, log and checkpoint."""
    (directory / artifact.CARD).unlink(missing_ok=True)
    (directory / LOG).unlink(missing_ok=True)
    checkpoint.remove(directory)


def refuse_others(directory: Path, found: Any, inputs: Mapping[str, Any]) -> None:
    before, now = _flat(found if isinstance(found, Mapping) else {}), _flat(artifact.plain(inputs))
    if before == now:
        return
    different = [
        f"{key} was {before.get(key)}, is {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    raise artifact.ArtifactError(
        f"{directory} holds a training of other settings ({'; '.join(different[:4])}): "
        "name another directory with --out, or train anew with --fresh"
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flat(item, f"{prefix}{key}.")
        elif item is not None:  # a setting that a later version brought, at its default
            flat[prefix + key] = item
    return flat
