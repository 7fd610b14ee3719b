"""What a training starts from: its students, its images, their weights, and who answers for them.

N training rows, M held-out ones, R the side of a stored image.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill import data, reuse, targets, views
from distill.learner import Learner, finished_or_refused, forget
from distill.method import Method, Needs
from distill.order import Mixed, Order, Visits, split
from distill.recipe import Recipe
from distill.stock import Stock
from indexes import artefact, devices
from indexes.shards import Shards
from indexes.teachers import Teacher

CODE_VERSION = 1  # of what a training computes: a checkpoint of another one is refused


def inputs(
    shards: Shards,
    mix: Mix | None,
    teacher: Teacher,
    method: ModuleType,
    config: Any,
    recipe: Recipe,
) -> dict[str, Any]:
    """All that a student's weights depend on, but its builder; people read it in the card."""
    return {
        "shards_digest": artefact.digest(shards.card),
        "mix_digest": artefact.digest(mix.shards.card) if mix else None,
        "mix_frac": mix.frac if mix else None,
        "teacher_digest": teacher.card.digest,
        "method": Path(str(method.__file__)).stem,
        "method_sha256": _own_code(method),
        "config": config,
        "recipe": recipe,
        "version": CODE_VERSION,
    }


def _own_code(method: ModuleType) -> str | None:
    """The digest of a user's own file; a method of ours is told by CODE_VERSION."""
    ours = method.__name__.startswith("distill.methods.")
    return None if ours else artefact.sha256(str(method.__file__))


def learners(
    students: Mapping[str, Path],
    kind: type[Method],
    teacher: Teacher,
    config: Any,
    inputs: Mapping[str, Any],
    recipe: Recipe,
    device: str,
    fresh: bool,
    trust_builder: bool,
) -> list[Learner]:
    """A learner for each student that is not finished, at its checkpoint where it has one."""
    learners = []
    for builder, directory in students.items():
        its_inputs = {**inputs, "student": builder}
        if fresh:
            forget(directory)
        if finished_or_refused(directory, its_inputs):
            continue
        learner = Learner(
            builder,
            directory,
            its_inputs,
            lambda net: kind(net, teacher, config),
            teacher=teacher.card,
            recipe=recipe,
            device=device,
            trust_builder=trust_builder,
        )
        if learner.step:
            print(f"{builder}: goes on at step {learner.step:,}", file=sys.stderr, flush=True)
        learners.append(learner)
    return learners


@dataclass(frozen=True)
class Mix:
    """A second shard set, and the share of it in each batch, in 0-1 (HiDFD's 1 - omega)."""

    shards: Shards
    frac: float

    def __post_init__(self) -> None:
        if not 0 < self.frac < 1:
            raise ValueError(f"the share of a second shard set is between 0 and 1, not {self.frac}")


def images(
    shards: Shards,
    mix: Mix | None,
    teacher: Teacher,
    kind: type[Method],
    config: Any,
    recipe: Recipe,
    device: str,
    workers: int | None,
    budget_bytes: int | None,
) -> tuple[data.Feed, Tensor, Tensor]:
    """The feed, the weights [N] of its images, and the stored held-out images [M, R, R, 3]."""
    if recipe.views and recipe.views < kind.views:
        raise ValueError(f"this method compares {kind.views} views: --views 0, or at least that")
    rows = split(shards.columns["key_hash"])
    sets = [(shards, rows.train)]
    per_step = recipe.batch_size // kind.views * kind.over_read(config)
    order: Visits = Order(len(rows.train), per_step, recipe.seed)
    if mix is not None:
        num_mixed = min(max(round(mix.frac * per_step), 1), per_step - 1)
        whole = np.arange(len(mix.shards))
        sets.append((mix.shards, whole))
        order = Mixed(
            Order(len(rows.train), per_step - num_mixed, recipe.seed),
            Order(len(whole), num_mixed, recipe.seed + 1),
        )
    stock = Stock(sets)
    geometry = data.stored_geometry(teacher.geometry)
    source = data.open_source(
        stock, geometry, order, device=device, workers=workers, budget_bytes=budget_bytes
    )
    feed = data.Feed(
        source,
        order,
        stock.key_hash,
        size=teacher.geometry.size,
        per_image=kind.views,
        num_views=recipe.views,
        # Kept views are the same for every seed, so that the teacher is asked about them once.
        seed=0 if recipe.views else recipe.seed,
    )
    heldout = data.decode_all(Stock([(shards, rows.heldout)]), geometry, device)
    return feed, torch.from_numpy(stock.weights).to(device), heldout


def answers(
    shards: Shards,
    mix: Mix | None,
    teacher: Teacher,
    needs: Needs,
    recipe: Recipe,
    device: str,
    targets_in: Path,
    num_rows: int,
) -> targets.Targets:
    """Who answers: the teacher at each step, or a file of its answers under `targets_in`."""
    taught = reuse.lesson(teacher) if needs == "map" else None

    def ask(pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        with devices.autocast(device):
            map_BDHW, features_BD, logits_BC = teacher(pixels)
        if taught is not None:
            return logits_BC, taught.map_of(map_BDHW, features_BD)
        return logits_BC, features_BD if needs == "features" else None

    if not recipe.views:
        return targets.Online(ask)
    key = {
        "shards": artefact.digest(shards.card),
        **({"mix": artefact.digest(mix.shards.card)} if mix else {}),
        "teacher": teacher.card.digest,
        "views": recipe.views,
        "version": views.VERSION,
        "device": torch.device(device).type,
    }
    width: int | tuple[int, ...] | None = None
    if taught is not None:
        width = taught.shape
    elif needs == "features":
        width = teacher.net.num_features
    name = f"{shards.directory.name}-{artefact.digest({**key, 'width': width})[:12]}"
    shape = num_rows, recipe.views, len(teacher.card.classes)
    kept = (width,) if isinstance(width, int) else width
    return targets.Cached(ask, targets_in / name, key, shape, kept)
