"""A checkpoint: one file, whole or absent, read back as plain tensors only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from indexes import artefact

NAME = "checkpoint.pt"


def save(directory: Path, state: dict[str, Any]) -> None:
    """Writes `state` (tensors, numbers, strings, lists and dicts of them) into `directory`."""
    with artefact.writing(directory / NAME) as aside:
        torch.save(state, aside)


def load(directory: Path, device: str) -> dict[str, Any] | None:
    """What `save` wrote, on `device`; None where nothing is. ArtefactError for a damaged file."""
    path = directory / NAME
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        # torch raises several types here, depending on where the damage lies.
        raise artefact.ArtefactError(
            f"{path} is damaged ({type(error).__name__}): delete it, or train anew with --fresh"
        ) from error
    if not isinstance(state, dict):
        raise artefact.ArtefactError(f"{path} is no checkpoint: delete it")
    return state


def remove(directory: Path) -> None:
    """Deletes the checkpoint, if there is one."""
    (directory / NAME).unlink(missing_ok=True)
