"""Weights: read from safetensors files, compared with a net and copied into it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from indexes.models.card import TeacherError
from indexes.models.net import Net

if TYPE_CHECKING:
    from torch import Tensor

NUM_LISTED = 3


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, such as the head's weight [C, D].

    Raises TeacherError if the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise TeacherError(
            f"{path} cannot be read ({error}): it is missing, damaged or truncated; copy it again"
        ) from error
    return state


def load_weights(net: Net, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy weights of any float type into `net`, after a comparison of names and shapes.

    `state` maps the names of the net's tensors to tensors of the same shape, such as the head's
    weight [C, D]. Raises TeacherError if the numbers of classes differ, or with the first few names
    that are missing, unexpected or of another shape.
    """
    expected = net.state_dict()
    head = f"{net.head_name}.weight"
    if head in state and state[head].shape[0] != net.num_classes:
        raise TeacherError(
            f"{source} has a head of {state[head].shape[0]} classes ({head}), but "
            f"{net.num_classes} class names were given"
        )
    # Old checkpoints lack these counters; only a BatchNorm without momentum would read them.
    counters = {k: v for k, v in expected.items() if k.endswith("num_batches_tracked")}
    state = {**counters, **state}
    missing = [f"{key} is missing" for key in expected if key not in state]
    surplus = [f"{key} is not in {net.builder}" for key in state if key not in expected]
    shapes = [
        f"{key} is {list(state[key].shape)}, not {list(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    types = [
        f"{key} is {state[key].dtype}"
        for key, value in expected.items()
        if key in state and state[key].is_floating_point() != value.is_floating_point()
    ]
    differences = [shapes, missing, surplus, types]
    if any(differences):
        lines = [line for group in differences for line in group[:NUM_LISTED]]
        listed, more = "; ".join(lines), sum(map(len, differences)) - len(lines)
        raise TeacherError(
            f"{source} does not fit {net.builder}: {listed}"
            + (f"; and {more} more" if more else "")
            + _stem_hint(state, expected)
        )
    net.load_state_dict(state)


def _stem_hint(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """A hint at the most common mistake with ResNets: the stem for 32 pixels, or for 224."""
    if "conv1.weight" not in state or "conv1.weight" not in expected:
        return ""
    sides = (state["conv1.weight"].shape[-1], expected["conv1.weight"].shape[-1])
    if sides == (3, 7):
        return ". conv1 is 3x3 in the weights: try --builder resnet18 or resnet34 (a CIFAR stem)"
    if sides == (7, 3):
        return ". conv1 is 7x7 in the weights: try --builder torchvision:resnet18 or a similar net"
    return ""
