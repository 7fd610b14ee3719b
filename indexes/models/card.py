"""The card of a teacher and the checks of its fields."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from indexes.artifact import ArtifactError
from indexes.images.decode import INTERPOLATIONS


class TeacherError(ArtifactError):
    """A teacher is missing, unfinished or altered, or it differs from its card."""


@dataclasses.dataclass(frozen=True)
class Card:
    """The definition of a teacher. `digest` covers all that changes its outputs, with the weights.

    `mean` and `std` are three numbers for pixels in [0, 1], `input_size` is in pixels, `crop_frac`
    is the share of the shorter side that the crop keeps, `accuracy` is in [0, 1] or None.
    """

    builder: str
    arguments: dict[str, Any]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: int
    crop_frac: float
    interpolation: str
    digest: str
    accuracy: float | None
    note: str


def checked_card(body: Mapping[str, Any], directory: Path) -> Card:
    """Return the card in `body`.

    Raises TeacherError, which names the first field of a wrong type or value.
    """

    def positive(value: Any) -> bool:
        return isinstance(value, (int, float)) and math.isfinite(value) and value > 0

    def three(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))

    classes = body.get("classes")
    size = body.get("input_size")
    weights = body.get("weights")
    tests = {
        "builder": isinstance(body.get("builder"), str),
        "arguments": isinstance(body.get("arguments"), dict),
        "classes": isinstance(classes, list)
        and len(classes) > 0
        and all(isinstance(name, str) for name in classes),
        "mean": three(body.get("mean")),
        "std": three(body.get("std")) and all(map(positive, body["std"])),
        "input_size": isinstance(size, int) and 1 <= size <= 8192,
        "crop_frac": positive(body.get("crop_frac")) and body["crop_frac"] <= 1,
        "interpolation": body.get("interpolation") in INTERPOLATIONS,
        "digest": isinstance(body.get("digest"), str),
        "accuracy": body.get("accuracy") is None or _is_number(body["accuracy"]),
        "note": isinstance(body.get("note"), str),
        "weights": isinstance(weights, dict)
        and isinstance(weights.get("bytes"), int)
        and isinstance(weights.get("sha256"), str),
    }
    for field, is_valid in tests.items():
        if not is_valid:
            raise TeacherError(
                f"{directory}: the card's field {field} has no valid value: {body.get(field)!r}"
            )
    fields = {field.name: body[field.name] for field in dataclasses.fields(Card)}
    for key in ("classes", "mean", "std"):
        fields[key] = tuple(fields[key])
    return Card(**fields)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
