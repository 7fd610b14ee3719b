"""What a training starts from: its students, its images, their weights, and who answers for them.

N training rows, M held-out ones, R the side of a stored image.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from distill import data, targets, views
from distill.asking import Asking, make
from distill.learner import Learner
from distill.method import Method, Needs
from distill.order import Mixed, Order, Share, Visits, split
from distill.ranks import Ranks
from distill.recipe import Recipe
from distill.resuming import finished_or_refused, forget
from distill.stock import Stock
from indexes import artefact
from indexes.shards import Shards
from indexes.teachers import Teacher

CODE_VERSION = 3  # of what a training computes: a checkpoint of another one is refused


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
    ranks: Ranks,
) -> list[Learner]:
    """A learner for each student that is not finished, at its checkpoint where it has one."""
    learners = []
    for builder, directory in students.items():
        its_inputs = {**inputs, "student": builder}
        if fresh and ranks.is_first:
            forget(directory)
        ranks.wait()
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
            ranks=ranks,
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
    ranks: Ranks,
) -> tuple[data.Feed, Stock, Tensor]:
    """The feed, the images that it shows, and the stored held-out images [M, R, R, 3].

    Each step of the feed is one of `recipe.accumulate` equal parts of a batch.
    """
    if recipe.views and recipe.views < kind.views:
        raise ValueError(f"this method compares {kind.views} views: --views 0, or at least that")
    rows = split(shards.columns["key_hash"])
    sets = [(shards, rows.train)]
    part = recipe.batch_size // recipe.accumulate // kind.views
    if part < ranks.num:
        raise ValueError(f"{part} images at a time are too few for {ranks.num} processes")
    per_step = part * kind.over_read(config)
    order: Visits = Order(len(rows.train), per_step, recipe.seed)
    if mix is not None:
        num_mixed = min(max(round(mix.frac * per_step), 1), per_step - 1)
        whole = np.arange(len(mix.shards))
        sets.append((mix.shards, whole))
        order = Mixed(
            Order(len(rows.train), per_step - num_mixed, recipe.seed),
            Order(len(whole), num_mixed, recipe.seed + 1),
        )
    if ranks.num > 1:
        order = Share(order, ranks.rank, ranks.num)
    stock = Stock(sets)
    geometry = data.stored_geometry(teacher.geometry)
    source = data.open_source(
        stock,
        geometry,
        order,
        device=device,
        workers=workers,
        budget_bytes=budget_bytes,
        ranks=ranks,
    )
    look = look_of(teacher, recipe)
    feed = data.Feed(
        source, order, stock.key_hash, look, per_image=kind.views, num_views=recipe.views
    )
    heldout = data.decode_all(Stock([(shards, rows.heldout)]), geometry, device, ranks)
    return feed, stock, heldout


def look_of(teacher: Teacher, recipe: Recipe) -> views.Look:
    """How views look: those that are kept do so for every seed of a training."""
    return views.Look(
        size=teacher.geometry.size,
        seed=recipe.view_seed if recipe.views else recipe.seed,
        colour=recipe.colour,
    )


def answers(
    stock: Stock,
    teacher: Teacher,
    needs: Needs,
    recipe: Recipe,
    device: str,
    shelf: Path,
    given: Path | None,
    ranks: Ranks,
) -> targets.Targets:
    """Who answers: the teacher at each step, or its answers, which are made where they are not.

    `given` are those to the first set of the stock; others are looked for on the shelf.
    """
    whose = [
        Asking(
            shards=shards,
            teacher=teacher,
            look=look_of(teacher, recipe),
            kind=needs,
            top=recipe.top_logits,
            device=device,
            compiled=recipe.compiled,
        )
        for shards, _ in stock.sets
    ]
    if not recipe.views:
        _hint(whose[0], shelf, recipe)
        return targets.Online(whose[0].ask)
    sets = []
    for number, (asking, (shards, rows)) in enumerate(zip(whose, stock.sets, strict=True)):
        place = given if number == 0 else None
        place = place or targets.found(shelf, shards, asking.key, recipe.views)
        place = place or make(asking, recipe.views, shelf, ranks)
        sets.append((targets.Kept(place, asking.key, recipe.views), rows))
        print(
            f"the teacher's {needs} of {recipe.views} views an image are read from {place}: "
            "it is not asked again",
            file=sys.stderr,
            flush=True,
        )
    return targets.Cached(sets, recipe.views, len(teacher.card.classes), needs)


def _hint(asking: Asking, shelf: Path, recipe: Recipe) -> None:
    """Says of kept answers that would serve, had they been asked for."""
    key = replace(asking.key, seed=recipe.view_seed)
    if (place := targets.found(shelf, asking.shards, key)) is not None:
        print(
            f"the teacher is asked at each step; {place} holds its answers: --targets {place} "
            "trains on their views instead",
            file=sys.stderr,
            flush=True,
        )
