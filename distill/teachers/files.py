"""Read the files of a checkpoint: the weights and the class names."""

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
    """Return the class names in the order of the head's rows.

    A file holds one name per line, or a JSON list of strings. Raises FileNotFoundError if there is
    no such file, TeacherError if it holds anything else.
    """
    if not isinstance(classes, Path):
        return list(classes)
    path = classes
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of class names {path}")
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
        names = json.loads(text) if text.startswith("[") else text.splitlines()
    except ValueError as error:
        raise TeacherError(f"{path} is neither text nor a JSON list: {error}") from error
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise TeacherError(
            f"{path} must hold one class name per line and no empty line, or a JSON list of strings"
        )
    return [name.strip() for name in names]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict: tensors of any shape [N, ...] by parameter name.

    Wrappers such as `state_dict` and prefixes such as `module.`, which training code adds, are
    removed. `path` is a .safetensors file, or a state dict that `torch.save` wrote, in any float
    type.

    Raises TeacherError if the file is damaged, holds more than tensors (it is never unpickled), or
    holds no state dict.
    """
    import torch

    if path.suffix == ".safetensors":
        return _unprefixed(read_safetensors(path))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Several error types are possible, and torch's messages advise unsafe loading.
        raise TeacherError(
            f"{path} cannot be read as plain tensors ({type(error).__name__}). It is damaged, or "
            "it holds pickled code, which winnow never runs. If you trust the file, load it "
            "elsewhere and save model.state_dict() alone, best as .safetensors"
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
            f"{path} holds no state dict, neither at its top level nor under {', '.join(WRAPPERS)}"
        )
    return _unprefixed(state)


def _unprefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES * 2:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
