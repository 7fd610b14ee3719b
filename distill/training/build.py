"""Build the parts of a training: learners, loader, teacher targets, weights, held-out images.

N training rows, M held-out rows, R the side of a stored image.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distill import feature_maps, provenance
from distill.data.augment import Augmentation
from distill.data.dataset import ShardDataset
from distill.data.loader import StepLoader, decode_all, open_image_source, stored_geometry
from distill.data.sampler import EpochSampler, MixedSampler, RankSampler, StepSampler, split_heldout
from distill.distributed import SINGLE, ProcessGroup
from distill.method import Method, method_class
from distill.recipe import Mix, Recipe
from distill.targets.cache import CachedTargets, OnlineTargets, TargetCache, Targets, find_targets
from distill.targets.precompute import TargetBuilder, build_target_cache
from distill.training.learner import Learner
from distill.training.resume import StudentCheckpoint, forget, is_finished
from indexes import artifact, devices
from indexes.models.net import build_net
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards

LEAST = 2  # images that a method sees at once: relations need two
CODE_VERSION = 6  # of the training code: a checkpoint of another version is refused

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """The description of a training: its images, teacher, students, method and settings.

    `students` maps each builder to its directory. `method` is the module of a method, and `config`
    is a Config of it. Cached targets are found and written under `targets_root`, unless `targets`
    names the cache for `shards`.
    """

    shards: Shards
    teacher: Teacher
    students: Mapping[str, Path]
    method: ModuleType
    config: Any
    recipe: Recipe
    targets_root: Path
    mix: Mix | None = None
    targets: Path | None = None
    device: str = "cpu"
    workers: int | None = None
    budget_bytes: int | None = None
    fresh: bool = False
    trust_builder: bool = False
    group: ProcessGroup = SINGLE

    @cached_property
    def method_class(self) -> type[Method]:
        """The subclass of Method in the module."""
        return method_class(self.method)

    @cached_property
    def resolved_recipe(self) -> Recipe:
        """The recipe with its optimizer filled in: by default the one of the method."""
        return replace(self.recipe, optimizer=self.recipe.optimizer or self.method_class.optimizer)

    @cached_property
    def augmentation(self) -> Augmentation:
        """The augmentation of the views. Fixed views are the same for every seed of a training."""
        recipe = self.recipe
        return Augmentation(
            size=self.teacher.geometry.size,
            seed=recipe.view_seed if recipe.views else recipe.seed,
            color_jitter=recipe.color_jitter,
            crop=recipe.crop,
            crop_area=recipe.crop_area,
        )

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """All that a student's weights depend on, except its builder; stored in its card."""
        mix = self.mix
        return {
            "shards_digest": artifact.digest(self.shards.card),
            "mix_digest": artifact.digest(mix.shards.card) if mix else None,
            "mix_frac": mix.frac if mix else None,
            "teacher_digest": self.teacher.card.digest,
            "method": Path(str(self.method.__file__)).stem,
            "method_sha256": _foreign_code(self.method),
            "config": self.config,
            "recipe": self.resolved_recipe,
            "version": CODE_VERSION,
        }


def _foreign_code(method: ModuleType) -> str | None:
    """Return the digest of a user's own file; None for this package, which has CODE_VERSION."""
    is_ours = method.__name__.startswith("distill.methods.")
    return None if is_ours else artifact.sha256(str(method.__file__))


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A training that is ready to run: the argument of `distill.train.train`.

    A batch has `num_views` views. Each step of `loader` is one of the `recipe.accumulate` equal
    parts of a batch. weights [N]; heldout: stored images [M, R, R, 3].
    """

    learners: Sequence[Learner]
    loader: StepLoader
    targets: Targets
    weights: npt.NDArray[np.float32]
    heldout: Tensor
    num_views: int
    recipe: Recipe
    teacher: Teacher
    lineage: Sequence[Mapping[str, Any]]
    device: str
    group: ProcessGroup


def build_setup(job: TrainingJob, learners: Sequence[Learner]) -> Setup:
    """Open the images and the targets for the learners that `build_learners` returned.

    Raises ValueError if the method compares more views than the recipe fixes, or if a part of a
    batch has fewer images than there are processes. Raises ArtifactError if the targets belong to
    other shards, another teacher or other views.
    """
    recipe, views = job.resolved_recipe, job.method_class.views(job.config)
    if recipe.views and recipe.views < views:
        raise ValueError(
            f"this method compares {views} views of each image: use --views 0, or at least {views}"
        )
    rows = split_heldout(job.shards.columns["key_hash"])
    sets = [(job.shards, rows.train)]
    if job.mix is not None:
        sets.append((job.mix.shards, np.arange(len(job.mix.shards))))
    dataset = ShardDataset(sets)
    loader = _build_loader(job, dataset)
    geometry = stored_geometry(job.teacher.geometry)
    heldout = ShardDataset([(job.shards, rows.heldout)])
    return Setup(
        learners=learners,
        loader=loader,
        targets=_build_targets(job, dataset),
        weights=dataset.weights,
        heldout=decode_all(heldout, geometry, job.device, job.group),
        num_views=loader.sampler.per_step * views * recipe.accumulate,
        recipe=recipe,
        teacher=job.teacher,
        lineage=provenance.summarize_shards(job.shards, job.mix),
        device=job.device,
        group=job.group,
    )


def build_learners(job: TrainingJob) -> list[Learner]:
    """Return a learner for each unfinished student, restored from its checkpoint if it has one.

    Raises ArtifactError if a directory holds a training with other settings, NetError if a builder
    is unknown.
    """
    learners = []
    for builder, directory in job.students.items():
        inputs = {**job.inputs, "student": builder}
        if job.fresh and job.group.is_first:
            forget(directory)
        job.group.wait()
        if is_finished(directory, inputs):
            continue
        learner = Learner(
            builder,
            build_method(job, builder),
            job.resolved_recipe,
            StudentCheckpoint(directory, inputs, job.group),
            device=job.device,
            group=job.group,
        )
        if learner.num_steps:
            log.info("%s: continuing at step %s", builder, f"{learner.num_steps:,}")
        learners.append(learner)
    return learners


def build_method(job: TrainingJob, builder: str) -> Method:
    """Build a student and its method, initialized from the recipe's seed.

    Raises NetError if the student is unknown or does not take images of the teacher's size.
    """
    card = job.teacher.card
    with torch.random.fork_rng(devices=devices.cuda_indices(job.device)):
        torch.manual_seed(job.recipe.seed)
        net = build_net(
            builder,
            num_classes=len(card.classes),
            mean=card.mean,
            std=card.std,
            input_size=card.input_size,
            trust=job.trust_builder,
        )
        feature_maps.probe_features(net, card.input_size)
        return job.method_class(net, job.teacher, job.config)


def _build_loader(job: TrainingJob, dataset: ShardDataset) -> StepLoader:
    recipe, group = job.recipe, job.group
    part = recipe.batch_size // recipe.accumulate
    if part < LEAST * group.num:
        raise ValueError(
            f"--batch-size {recipe.batch_size} is too small for --accumulate {recipe.accumulate} "
            f"and {group.num} process(es): each part needs {LEAST} images per process"
        )
    sampler = _build_sampler(job, dataset, part * job.method_class.oversample(job.config))
    if group.num > 1:
        sampler = RankSampler(sampler, group.rank, group.num)
    source = open_image_source(
        dataset,
        stored_geometry(job.teacher.geometry),
        sampler,
        device=job.device,
        workers=job.workers,
        budget_bytes=job.budget_bytes,
        group=group,
    )
    return StepLoader(
        source,
        sampler,
        dataset.key_hash,
        job.augmentation,
        per_image=job.method_class.views(job.config),
        num_views=recipe.views,
    )


def _build_sampler(job: TrainingJob, dataset: ShardDataset, per_step: int) -> StepSampler:
    """Return a sampler of one set, or of two sets in the proportion of the mix."""
    seed, sizes = job.recipe.seed, [len(rows) for _, rows in dataset.sets]
    if job.mix is None:
        return EpochSampler(sizes[0], per_step, seed)
    num_first, num_mixed = job.mix.split(per_step)
    return MixedSampler(
        EpochSampler(sizes[0], num_first, seed),
        EpochSampler(sizes[1], num_mixed, seed + 1),
    )


def _build_targets(job: TrainingJob, dataset: ShardDataset) -> Targets:
    """Return online targets, or cached ones; missing cached targets are computed first."""
    recipe, needs = job.recipe, job.method_class.needs(job.config)
    builders = [
        TargetBuilder(
            shards=shards,
            teacher=job.teacher,
            augmentation=job.augmentation,
            kind=needs,
            top=recipe.top_logits,
            device=job.device,
            compiled=recipe.compiled,
        )
        for shards, _ in dataset.sets
    ]
    if not recipe.views:
        _hint_cached(job, builders[0])
        return OnlineTargets(builders[0].teacher_function)
    sets = []
    named = [job.targets, *(None for _ in builders[1:])]
    for directory, builder, (shards, rows) in zip(named, builders, dataset.sets, strict=True):
        directory = directory or find_targets(job.targets_root, shards, builder.key, recipe.views)
        if directory is None:
            directory = build_target_cache(builder, recipe.views, job.targets_root, job.group)
        sets.append((TargetCache(directory, builder.key, recipe.views), rows))
        log.info(
            "reading the teacher's %s of %d views per image from %s", needs, recipe.views, directory
        )
    return CachedTargets(sets, recipe.views, len(job.teacher.card.classes), needs)


def _hint_cached(job: TrainingJob, builder: TargetBuilder) -> None:
    """Log the directory of cached targets that would spare the teacher's work, if there is one."""
    key = replace(builder.key, seed=job.recipe.view_seed)
    if (directory := find_targets(job.targets_root, builder.shards, key)) is not None:
        log.info(
            "the teacher runs at every step, but %s holds cached targets: train on their views "
            "with --targets %s",
            directory,
            directory,
        )
