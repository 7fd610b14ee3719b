"""Target builders, loaders and caches for the small setup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.data import augment
from distill.data.dataset import ShardDataset
from distill.data.loader import InMemory, StepLoader, decode_all, stored_geometry
from distill.data.sampler import EpochSampler, split_heldout
from distill.recipe import Needs
from distill.targets.cache import (
    CachedTargets,
    TargetCache,
)
from distill.targets.precompute import (
    TargetBuilder,
)
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards

World = tuple[Shards, Teacher]
VIEWS = 3
KINDS: list[Needs] = ["logits", "features", "map", "maps"]
AUGMENTATION = augment.Augmentation(size=32, seed=0)


def builder_of(world: World, **changed: Any) -> TargetBuilder:
    shards, teacher = world
    return TargetBuilder(
        **{"shards": shards, "teacher": teacher, "augmentation": AUGMENTATION, **changed}
    )


def loader_of(world: World, order_seed: int = 0, per_image: int = 1) -> StepLoader:
    shards, teacher = world
    dataset = ShardDataset([(shards, split_heldout(shards.columns["key_hash"]).train)])
    order = EpochSampler(len(dataset), 16, order_seed)
    stored = decode_all(dataset, stored_geometry(teacher.geometry), "cpu")
    source = InMemory(stored, order)
    return StepLoader(
        source, order, dataset.key_hash, AUGMENTATION, per_image=per_image, num_views=VIEWS
    )


def cached_of(world: World, directory: Path, needs: Needs, **changed: Any) -> CachedTargets:
    rows = split_heldout(world[0].columns["key_hash"]).train
    cache = TargetCache(directory, builder_of(world, kind=needs, **changed).key, VIEWS)
    return CachedTargets([(cache, rows)], VIEWS, 3, needs)


def bytes_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.glob("*.npy"))}
