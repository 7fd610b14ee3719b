"""What a training starts from: its students, its images, their weights, and who answers for them.

N training rows, M held-out ones, R the side of a stored image.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from distill.data import augment
from distill.data.dataset import ShardDataset
from distill.data.loader import StepLoader, decode_all, open_image_source, stored_geometry
from distill.data.sampler import EpochSampler, MixedSampler, RankSampler, StepSampler, split_heldout
from distill.distributed import ProcessGroup
from distill.method import Method, Needs
from distill.recipe import Mix, Recipe
from distill.targets.cache import CachedTargets, OnlineTargets, TargetCache, Targets, find_targets
from distill.targets.precompute import TargetBuilder, precompute_targets
from distill.training.learner import Learner
from distill.training.resume import finished_or_refused, forget
from indexes import artifact
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards

CODE_VERSION = 3  # of what a training computes: a checkpoint of another one is refused


def training_inputs(
    shards: Shards,
    mix: Mix | None,
    teacher: Teacher,
    method: ModuleType,
    config: Any,
    recipe: Recipe,
) -> dict[str, Any]:
    """All that a student's weights depend on, but its builder; people read it in the card."""
    return {
        "shards_digest": artifact.digest(shards.card),
        "mix_digest": artifact.digest(mix.shards.card) if mix else None,
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
    return None if ours else artifact.sha256(str(method.__file__))


def build_learners(
    students: Mapping[str, Path],
    kind: type[Method],
    teacher: Teacher,
    config: Any,
    inputs: Mapping[str, Any],
    recipe: Recipe,
    device: str,
    fresh: bool,
    trust_builder: bool,
    group: ProcessGroup,
) -> list[Learner]:
    """A learner for each student that is not finished, at its checkpoint where it has one."""
    learners = []
    for builder, directory in students.items():
        its_inputs = {**inputs, "student": builder}
        if fresh and group.is_first:
            forget(directory)
        group.wait()
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
            group=group,
        )
        if learner.step:
            print(f"{builder}: goes on at step {learner.step:,}", file=sys.stderr, flush=True)
        learners.append(learner)
    return learners


def build_loader(
    shards: Shards,
    mix: Mix | None,
    teacher: Teacher,
    kind: type[Method],
    config: Any,
    recipe: Recipe,
    device: str,
    workers: int | None,
    budget_bytes: int | None,
    group: ProcessGroup,
) -> tuple[StepLoader, ShardDataset, Tensor]:
    """The feed, the images that it shows, and the stored held-out images [M, R, R, 3].

    Each step of the feed is one of `recipe.accumulate` equal parts of a batch.
    """
    if recipe.views and recipe.views < kind.views:
        raise ValueError(f"this method compares {kind.views} views: --views 0, or at least that")
    rows = split_heldout(shards.columns["key_hash"])
    sets = [(shards, rows.train)]
    part = recipe.batch_size // recipe.accumulate // kind.views
    if part < group.num:
        raise ValueError(f"{part} images at a time are too few for {group.num} processes")
    per_step = part * kind.oversample(config)
    order: StepSampler = EpochSampler(len(rows.train), per_step, recipe.seed)
    if mix is not None:
        num_mixed = min(max(round(mix.frac * per_step), 1), per_step - 1)
        whole = np.arange(len(mix.shards))
        sets.append((mix.shards, whole))
        order = MixedSampler(
            EpochSampler(len(rows.train), per_step - num_mixed, recipe.seed),
            EpochSampler(len(whole), num_mixed, recipe.seed + 1),
        )
    if group.num > 1:
        order = RankSampler(order, group.rank, group.num)
    stock = ShardDataset(sets)
    geometry = stored_geometry(teacher.geometry)
    source = open_image_source(
        stock,
        geometry,
        order,
        device=device,
        workers=workers,
        budget_bytes=budget_bytes,
        group=group,
    )
    look = augmentation_of(teacher, recipe)
    feed = StepLoader(
        source, order, stock.key_hash, look, per_image=kind.views, num_views=recipe.views
    )
    heldout = decode_all(ShardDataset([(shards, rows.heldout)]), geometry, device, group)
    return feed, stock, heldout


def augmentation_of(teacher: Teacher, recipe: Recipe) -> augment.Augmentation:
    """How views look: those that are kept do so for every seed of a training."""
    return augment.Augmentation(
        size=teacher.geometry.size,
        seed=recipe.view_seed if recipe.views else recipe.seed,
        color=recipe.color,
    )


def build_targets(
    stock: ShardDataset,
    teacher: Teacher,
    needs: Needs,
    recipe: Recipe,
    device: str,
    shelf: Path,
    given: Path | None,
    group: ProcessGroup,
) -> Targets:
    """Who answers: the teacher at each step, or its answers, which are made where they are not.

    `given` are those to the first set of the stock; others are looked for on the shelf.
    """
    whose = [
        TargetBuilder(
            shards=shards,
            teacher=teacher,
            look=augmentation_of(teacher, recipe),
            kind=needs,
            top=recipe.top_logits,
            device=device,
            compiled=recipe.compiled,
        )
        for shards, _ in stock.sets
    ]
    if not recipe.views:
        _hint_cached(whose[0], shelf, recipe)
        return OnlineTargets(whose[0].ask)
    sets = []
    for number, (asking, (shards, rows)) in enumerate(zip(whose, stock.sets, strict=True)):
        place = given if number == 0 else None
        place = place or find_targets(shelf, shards, asking.key, recipe.views)
        place = place or precompute_targets(asking, recipe.views, shelf, group)
        sets.append((TargetCache(place, asking.key, recipe.views), rows))
        print(
            f"the teacher's {needs} of {recipe.views} views an image are read from {place}: "
            "it is not asked again",
            file=sys.stderr,
            flush=True,
        )
    return CachedTargets(sets, recipe.views, len(teacher.card.classes), needs)


def _hint_cached(asking: TargetBuilder, shelf: Path, recipe: Recipe) -> None:
    """Says of kept answers that would serve, had they been asked for."""
    key = replace(asking.key, seed=recipe.view_seed)
    if (place := find_targets(shelf, asking.shards, key)) is not None:
        print(
            f"the teacher is asked at each step; {place} holds its answers: --targets {place} "
            "trains on their views instead",
            file=sys.stderr,
            flush=True,
        )
