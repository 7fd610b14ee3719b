"""Cached targets equal online targets, and are refused for other inputs."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data import augment
from distill.data.dataset import ShardDataset
from distill.data.loader import ViewBatch, decode_all, stored_geometry
from distill.losses.kd import kd
from distill.recipe import Needs
from distill.targets import cache
from distill.targets.cache import (
    CachedTargets,
    OnlineTargets,
    TargetCache,
    check_targets,
    file_name,
    find_targets,
    full_logits,
    top_logits,
)
from distill.targets.fast_teacher import teacher_function
from distill.targets.precompute import (
    build_target_cache,
)
from indexes import artifact
from indexes.artifact import ArtifactError
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards
from tests.support import distillation
from tests.support.targets import (
    AUGMENTATION,
    KINDS,
    VIEWS,
    builder_of,
    cached_of,
    loader_of,
)

World = tuple[Shards, Teacher]


@pytest.fixture(scope="module")
def caches(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("targets")
    return {kind: build_target_cache(builder_of(world, kind=kind), VIEWS, root) for kind in KINDS}


@pytest.mark.parametrize("per_image", [1, 2])
@pytest.mark.parametrize("needs", KINDS)
def test_cached_targets_equal_online_targets_in_float16(
    world: World, caches: dict[str, Path], needs: Needs, per_image: int
) -> None:
    online, loader = (
        OnlineTargets(teacher_function(world[1], needs, "cpu")),
        loader_of(world, 5, per_image),
    )
    cached = cached_of(world, caches[needs], needs)
    for views in loader.steps(0, 12):
        ours, theirs = cached(views), online(views)
        torch.testing.assert_close(ours.logits_BC, theirs.logits_BC, rtol=0.02, atol=0.05)
        assert (ours.features is None) == (theirs.features is None)
        if theirs.features is not None:
            assert ours.features is not None
            assert ours.features.shape == theirs.features.shape
            torch.testing.assert_close(ours.features, theirs.features.float(), rtol=0.03, atol=0.03)
        assert (ours.stage is None) == (needs != "maps")
        if ours.stage is not None:
            assert theirs.stage is not None
            assert ours.stage.shape == (16 * per_image, 32, 16, 16)
            torch.testing.assert_close(ours.stage, theirs.stage, rtol=0.03, atol=0.03)
        student = torch.randn(len(theirs.logits_BC), 3, generator=torch.Generator().manual_seed(1))
        losses = [kd(student, targets.logits_BC, 4.0).mean() for targets in (ours, theirs)]
        torch.testing.assert_close(*losses, rtol=2e-3, atol=0)


def test_cached_maps_also_provide_features_and_logits(
    world: World, caches: dict[str, Path]
) -> None:
    views = next(loader_of(world).steps(0, 1))
    full = cached_of(world, caches["map"], "map")(views)
    for needs in ("logits", "features"):
        partial = cached_of(world, caches["map"], needs)(views)
        assert torch.equal(partial.logits_BC, full.logits_BC)
        assert (partial.features is None) == (needs == "logits")
        more = cached_of(world, caches["maps"], needs)(views)
        assert torch.equal(more.logits_BC, full.logits_BC)
        assert more.stage is None
    with pytest.raises(
        ArtifactError, match="holds only the teacher's logits, but this method also needs its map"
    ):
        cached_of(world, caches["logits"], "map")
    root, key = caches["map"].parent, builder_of(world).key
    assert find_targets(root, world[0], key, VIEWS) == caches["logits"]
    assert find_targets(root, world[0], key, VIEWS + 1) is None
    assert find_targets(root / "nowhere", world[0], key) is None


def test_several_caches_are_concatenated(world: World, tmp_path: Path) -> None:
    shards, teacher = world
    images = [distillation.draw_image(number) for number in range(100, 108)]
    other = distillation.make_shards(tmp_path / "other", teacher, 8, images=images)
    sets, dataset = [], ShardDataset([(shards, np.array([7, 3, 40])), (other, np.array([5, 0]))])
    for shard_set, rows in dataset.sets:
        builder = builder_of((shard_set, teacher), kind="map")
        sets.append(
            (
                TargetCache(build_target_cache(builder, 2, tmp_path / "targets"), builder.key, 2),
                rows,
            )
        )
    cached = CachedTargets(sets, 2, 3, "map")
    index, visits = np.array([4, 0, 3, 2, 1, 0]), np.array([0, 1, 3, 2, 0, 0])
    stored = decode_all(dataset, stored_geometry(teacher.geometry), "cpu")[index]
    pixels = augment.Augmentation(size=32, seed=0)(stored, dataset.key_hash[index], visits % 2)
    targets = cached(ViewBatch(pixels, index, visits))
    expected = teacher_function(teacher, "map", "cpu")(pixels)
    torch.testing.assert_close(targets.logits_BC, expected[0], rtol=0.02, atol=0.05)
    torch.testing.assert_close(targets.features, expected[1].float(), rtol=0.03, atol=0.03)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (dict(shards="f" * 64), "other shards"),
        (dict(teacher="f" * 64), "another teacher"),
        (dict(seed=1), r"another view seed \(0, not 1\)"),
        (dict(color_jitter=0.2), "another color jitter of views"),
        (dict(view_version=99), r"another view version \(\d, not 99\)"),
        (dict(top=2), "another number of logits"),
        (dict(crop="zeros"), r"another crop of views \(the default, not zeros\)"),
        (dict(crop_area=0.08), r"another lowest area of crops \(0\.35, not 0\.08\)"),
    ],
)
def test_targets_of_other_inputs_are_refused_by_name(
    world: World, caches: dict[str, Path], other: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        TargetCache(caches["logits"], replace(builder_of(world).key, **other), VIEWS)
    assert find_targets(
        caches["logits"].parent, world[0], replace(builder_of(world).key, **other)
    ) is None  # fmt: skip


def test_the_default_crop_has_no_part_in_the_key(world: World, caches: dict[str, Path]) -> None:
    """So caches of before there was a choice are found, whose cards do not know the crop."""
    key = builder_of(world).key
    assert key == builder_of(world, augmentation=replace(AUGMENTATION, crop="pad")).key
    assert (key.crop, key.crop_area) == (None, 0.35)
    older = {name: value for name, value in asdict(key).items() if "crop" not in name}
    assert key.digest == artifact.digest(older)
    check_targets(caches["logits"], {"key": older}, key)
    views = [
        AUGMENTATION,
        replace(AUGMENTATION, crop="zeros"),
        replace(AUGMENTATION, crop="resized"),
        replace(AUGMENTATION, crop="resized", crop_area=0.08),
    ]
    keys = [builder_of(world, augmentation=augmentation).key for augmentation in views]
    assert len({other.digest for other in keys}) == len(keys)
    for other in keys[1:]:
        with pytest.raises(ArtifactError, match=r"another (crop|lowest area)"):
            check_targets(caches["logits"], {"key": older}, other)
        assert find_targets(caches["logits"].parent, world[0], other) is None
    unused = replace(AUGMENTATION, crop="zeros", crop_area=0.5)
    assert builder_of(world, augmentation=unused).key == keys[1]


def test_too_few_views_and_truncated_files_are_refused(world: World, tmp_path: Path) -> None:
    directory = build_target_cache(builder_of(world), 1, tmp_path)
    with pytest.raises(
        ArtifactError, match=r"of 1 views, not of 2: run `winnow targets --views 2`"
    ):
        TargetCache(directory, builder_of(world).key, 2)
    path = directory / file_name(0, "logits")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match="does not have the"):
        TargetCache(directory, builder_of(world).key, 1)


@given(st.integers(1, 20), st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_the_largest_logits_and_the_remaining_mass_are_cached(top: int, seed: int) -> None:
    logits = 4 * torch.randn(5, 20, generator=torch.Generator().manual_seed(seed))
    parts = top_logits(logits, top)
    assert (len(parts) == 1) == (top == 20)
    if top == 20:
        assert torch.equal(parts["logits"], logits.half())
        return
    restored = full_logits(parts["logits"].float(), parts["classes"], parts["rest"], 20)
    best = logits.topk(top, dim=1).indices
    wanted = logits.half().float()
    assert torch.equal(restored.gather(1, best), wanted.gather(1, best))
    torch.testing.assert_close(
        restored.softmax(1).gather(1, best), logits.softmax(1).gather(1, best), rtol=0.02, atol=1e-4
    )
    others = torch.ones_like(restored).scatter(1, best, 0).bool()
    tail = restored[others].view(5, -1)
    assert torch.equal(tail, tail[:, :1].expand_as(tail))


def test_only_the_largest_logits_of_many_classes_are_cached(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "FULL_CLASSES", 2)
    builder = builder_of(world, top=2)
    directory = build_target_cache(builder, VIEWS, tmp_path)
    assert np.load(directory / file_name(0, "classes")).dtype == np.int32
    cached = cached_of(world, directory, "logits", top=2)
    online = OnlineTargets(teacher_function(world[1], "logits", "cpu"))
    for views in loader_of(world).steps(0, 3):
        # With three classes, the tail is a single class, so the cached targets are exact.
        ours, theirs = cached(views).logits_BC, online(views).logits_BC
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.05)
