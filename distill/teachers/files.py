"""What a vendor delivers with a net: its weights in a file, and the names of its classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from indexes.models.teacher import TeacherError
from indexes.models.weights import read_safetensors

if TYPE_CHECKING:
    from torch import Tensor

WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "model.", "_orig_mod.")


def class_names(classes: Path | Sequence[str]) -> list[str]:
    """Class names in the order of the head's rows; a file holds one per line, or a JSON list.

    Raises FileNotFoundError where there is no file, TeacherError where it holds something else.
    """
    if not isinstance(classes, Path):
        return list(classes)
    path = classes
    if not path.is_file():
        raise FileNotFoundError(f"no file of class names {path}")
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
        names = json.loads(text) if text.startswith("[") else text.splitlines()
    except ValueError as error:
        raise TeacherError(f"{path} is not text or a JSON list: {error}") from error
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise TeacherError(
            f"{path} must hold one class name per line without empty lines, or a JSON list of "
            "strings"
        )
    return [name.strip() for name in names]


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict by parameter name, without the wrappers and prefixes that trainers leave.

    `path` is a .safetensors file or a state dict that torch.save wrote, in any float type.

    Raises TeacherError for a damaged file, one with more than tensors in it (never unpickled)
    and one without a state dict.
    """
    import torch

    if path.suffix == ".safetensors":
        return _unprefixed(read_safetensors(path))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Damage and forbidden content raise several types, and their texts advise unsafe loading.
        raise TeacherError(
            f"{path} cannot be read as plain tensors ({type(error).__name__}). It is damaged, or "
            "holds pickled code, which is never run here: save model.state_dict() alone where you "
            "trust the file, best as .safetensors"
        ) from error
    for key in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(value, torch.Tensor) for value in state.values())
    ):
        raise TeacherError(
            f"{path} holds no state dict, neither itself nor under {', '.join(WRAPPERS)}"
        )
    return _unprefixed(state)


def _unprefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES * 2:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
