"""What `winnow distill` and its siblings were asked for, and what that resolves to."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.recipe import LR_PER_128, Recipe
from indexes import artifact
from indexes.models.builders import split_arguments
from indexes.shards.reader import Shards

EPOCHS = 30.0


def view_settings(targets: Path | None, views: int, color: float | None) -> dict[str, Any]:
    """The Recipe's fields of how views look: as they were for `targets`, where those are given.

    Raises ArtifactError where both are said and differ.
    """
    said = {"views": views} | ({} if color is None else {"color": color})
    if targets is None:
        return said
    card = artifact.read_card(targets, "targets")
    key = card["key"]
    if color not in (None, key["color"]):
        raise artifact.ArtifactError(
            f"{targets} holds answers to views of color {key['color']}, not {color}"
        )
    return {
        "views": views or card["views"],
        "color": key["color"],
        "view_seed": key["seed"],
        "top_logits": key["top"],
    }


def last_shards(runs: Path) -> Path:
    """What `winnow select` wrote last; ValueError when it has not yet."""
    note = runs / "last-shards.json"
    if not note.is_file():
        raise ValueError(
            f"no --shards given and {note} is not there: run `winnow select` first, or name shards"
        )
    return Path(str(artifact.read_json(note)["shards"]))


def split_builders(words: Sequence[str]) -> list[str]:
    """Builders separated by spaces or commas, but for commas within brackets."""
    return [word for word in re.split(r"[\s,]+(?![^\[(]*[\])])", " ".join(words)) if word]


def make_recipe(known: Mapping[str, Any], given: Mapping[str, Any], num_images: int) -> Recipe:
    """The Recipe of a preset's fields and those given, which win; where no steps, 30 epochs."""
    fields = {**known, **given}
    if "epochs" in given and "steps" not in given:
        fields.pop("steps", None)
    epochs = fields.pop("epochs", EPOCHS)
    batch_size = fields.setdefault("batch_size", Recipe.batch_size)
    fields.setdefault("lr", LR_PER_128 * batch_size / 128)
    fields.setdefault("steps", max(1, math.ceil(epochs * num_images / batch_size)))
    return Recipe(**fields)


def student_directories(
    builders: Sequence[str], shards: Shards, method: str, seed: int, runs: Path, out: Path | None
) -> dict[str, Path]:
    """Builder -> directory: OUT, or OUT/STUDENT for several, or RUNS/students/SHARDS-METHOD-..."""
    places = {}
    for builder in builders:
        plain, arguments = split_arguments(builder)
        words = plain.rpartition(":")[2], *(f"{key}{value}" for key, value in arguments.items())
        short = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(words))
        name = f"{shards.directory.resolve().name}-{method}-{short}" + (f"-seed{seed}" * (seed > 0))
        several = len(set(builders)) > 1
        places[builder] = (out / short if several else out) if out else runs / "students" / name
    if len(set(places.values())) < len(places):
        raise ValueError(f"{', '.join(builders)} would share a directory: train them one by one")
    return places
