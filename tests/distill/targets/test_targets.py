"""Answers kept are those asked at each step, are asked for once, and serve for nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import winnow
from distill.data import augment, loader
from distill.data.dataset import ShardDataset
from distill.data.loader import InMemory, StepLoader, ViewBatch, decode_all, stored_geometry
from distill.data.sampler import EpochSampler, split_heldout
from distill.losses.kd import kd
from distill.recipe import Needs
from distill.targets import cache
from distill.targets.cache import (
    CachedTargets,
    OnlineTargets,
    TargetCache,
    file_name,
    find_targets,
    full_logits,
    top_logits,
)
from distill.targets.fast_teacher import teacher_function
from distill.targets.precompute import (
    DONE_FILE,
    TargetBuilder,
    build_target_cache,
    shutil,
    verify_targets,
)
from indexes import artifact
from indexes.artifact import ArtifactError
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards
from tests.support import distillation

World = tuple[Shards, Teacher]
VIEWS = 3
AUGMENTATION = augment.Augmentation(size=32, seed=0)
KINDS: list[Needs] = ["logits", "features", "map"]


def builder_of(world: World, **changed: Any) -> TargetBuilder:
    shards, teacher = world
    return TargetBuilder(
        **{
            "shards": shards,
            "teacher": teacher,
            "augmentation": augment.Augmentation(size=32, seed=0),
        }
        | changed
    )


def loader_of(world: World, order_seed: int = 0, per_image: int = 1) -> StepLoader:
    shards, teacher = world
    stock = ShardDataset([(shards, split_heldout(shards.columns["key_hash"]).train)])
    order = EpochSampler(len(stock), 16, order_seed)
    stored = decode_all(stock, stored_geometry(teacher.geometry), "cpu")
    source = InMemory(stored, order)
    return StepLoader(
        source, order, stock.key_hash, AUGMENTATION, per_image=per_image, num_views=VIEWS
    )


def cached_of(world: World, directory: Path, needs: Needs, **changed: Any) -> CachedTargets:
    rows = split_heldout(world[0].columns["key_hash"]).train
    kept = TargetCache(directory, builder_of(world, kind=needs, **changed).key, VIEWS)
    return CachedTargets([(kept, rows)], VIEWS, 3, needs)


@pytest.fixture(scope="module")
def kept(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    shelf = tmp_path_factory.mktemp("targets")
    return {kind: build_target_cache(builder_of(world, kind=kind), VIEWS, shelf) for kind in KINDS}


@pytest.mark.parametrize("per_image", [1, 2])
@pytest.mark.parametrize("needs", KINDS)
def test_cached_is_online_in_float16(
    world: World, kept: dict[str, Path], needs: Needs, per_image: int
) -> None:
    online, feed = (
        OnlineTargets(teacher_function(world[1], needs, "cpu")),
        loader_of(world, 5, per_image),
    )
    cached = cached_of(world, kept[needs], needs)
    for seen in feed.steps(0, 12):
        ours, theirs = cached(seen), online(seen)
        torch.testing.assert_close(ours.logits_BC, theirs.logits_BC, rtol=0.02, atol=0.05)
        assert (ours.features is None) == (theirs.features is None)
        if theirs.features is not None:
            assert ours.features is not None
            assert ours.features.shape == theirs.features.shape
            torch.testing.assert_close(ours.features, theirs.features.float(), rtol=0.03, atol=0.03)
        student = torch.randn(len(theirs.logits_BC), 3, generator=torch.Generator().manual_seed(1))
        losses = [kd(student, one.logits_BC, 4.0).mean() for one in (ours, theirs)]
        torch.testing.assert_close(*losses, rtol=2e-3, atol=0)


def test_a_map_serves_for_less(world: World, kept: dict[str, Path]) -> None:
    seen = next(loader_of(world).steps(0, 1))
    whole = cached_of(world, kept["map"], "map")(seen)
    for needs in ("logits", "features"):
        found = cached_of(world, kept["map"], needs)(seen)
        assert torch.equal(found.logits_BC, whole.logits_BC)
        assert (found.features is None) == (needs == "logits")
    with pytest.raises(ArtifactError, match=r"holds logits and this method needs .*map"):
        cached_of(world, kept["logits"], "map")
    shelf, key = kept["map"].parent, builder_of(world).key
    assert find_targets(shelf, world[0], key, VIEWS) == kept["logits"]
    assert find_targets(shelf, world[0], key, VIEWS + 1) is None
    assert find_targets(shelf / "nowhere", world[0], key) is None


def test_several_sets_lie_one_behind_the_other(world: World, tmp_path: Path) -> None:
    shards, teacher = world
    images = [distillation.draw_image(number) for number in range(100, 108)]
    other = distillation.make_shards(tmp_path / "other", teacher, 8, images=images)
    sets, stock = [], ShardDataset([(shards, np.array([7, 3, 40])), (other, np.array([5, 0]))])
    for each, rows in stock.sets:
        who = builder_of((each, teacher), kind="map")
        sets.append(
            (TargetCache(build_target_cache(who, 2, tmp_path / "targets"), who.key, 2), rows)
        )
    cached = CachedTargets(sets, 2, 3, "map")
    index, visits = np.array([4, 0, 3, 2, 1, 0]), np.array([0, 1, 3, 2, 0, 0])
    stored = decode_all(stock, stored_geometry(teacher.geometry), "cpu")[index]
    pixels = augment.Augmentation(size=32, seed=0)(stored, stock.key_hash[index], visits % 2)
    found = cached(ViewBatch(pixels, index, visits))
    asked = teacher_function(teacher, "map", "cpu")(pixels)
    torch.testing.assert_close(found.logits_BC, asked[0], rtol=0.02, atol=0.05)
    torch.testing.assert_close(found.features, asked[1].float(), rtol=0.03, atol=0.03)


class Counting:
    """Counts the views that a teacher is asked about, and dies after so many calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, calls: int = 10**9) -> None:
        self.asked, self.calls = 0, calls
        answers = TargetBuilder.compute

        def counted(one: TargetBuilder, stored: torch.Tensor, rows: Any, view: int) -> Any:
            self.calls -= 1
            if self.calls < 0:
                raise RuntimeError("killed")
            self.asked += len(rows)
            return answers(one, stored, rows, view)

        monkeypatch.setattr(TargetBuilder, "compute", counted)


def bytes_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.glob("*.npy"))}


def test_asked_once_resumed_and_extended(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "CHUNK", 16)
    num = len(world[0])
    with monkeypatch.context() as patch:
        counting = Counting(patch)
        whole = build_target_cache(builder_of(world), VIEWS, tmp_path / "whole")
        assert counting.asked == num * VIEWS + 1
        build_target_cache(builder_of(world), VIEWS, tmp_path / "whole")
        build_target_cache(builder_of(world), 1, tmp_path / "whole")
        assert counting.asked == num * VIEWS + 1
    with monkeypatch.context() as patch:
        Counting(patch, calls=1 + 2 * VIEWS + 1)  # dies in the third block
        with pytest.raises(RuntimeError, match="killed"):
            build_target_cache(builder_of(world), VIEWS, tmp_path / "cut")
    cut = tmp_path / "cut" / whole.name
    assert not artifact.is_done(cut)
    with pytest.raises(ArtifactError, match=r"has no card\.json"):
        TargetCache(cut, builder_of(world).key, 1)
    with monkeypatch.context() as patch:
        counting = Counting(patch)
        build_target_cache(builder_of(world), VIEWS, tmp_path / "cut")
        assert counting.asked == (num - 32) * VIEWS + 1
    assert bytes_of(cut) == bytes_of(whole)
    with monkeypatch.context() as patch:
        counting = Counting(patch)
        build_target_cache(builder_of(world), 1, tmp_path / "grown")
        build_target_cache(builder_of(world), VIEWS, tmp_path / "grown")
        assert counting.asked == num * VIEWS + 2
    grown = tmp_path / "grown" / whole.name
    assert bytes_of(grown) == bytes_of(whole)
    assert (grown / "card.json").read_bytes() == (whole / "card.json").read_bytes()


def test_other_files_than_those_marked_are_asked_for_anew(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "CHUNK", 16)
    with monkeypatch.context() as patch:
        Counting(patch, calls=1 + 3 * VIEWS)
        with pytest.raises(RuntimeError, match="killed"):
            build_target_cache(builder_of(world), VIEWS, tmp_path)
    (place,) = tmp_path.iterdir()
    (marks,) = place.glob(f"{DONE_FILE}*")
    assert np.load(marks).sum() == 3
    (place / file_name(1, "logits")).unlink()
    with monkeypatch.context() as patch:
        counting = Counting(patch)
        build_target_cache(builder_of(world), VIEWS, tmp_path)
        assert counting.asked == len(world[0]) * VIEWS + 1


def test_marks_are_of_the_views_that_were_asked_for(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks answered for two views, when three were begun before, have no third view."""
    monkeypatch.setattr(loader, "CHUNK", 16)
    whole = build_target_cache(builder_of(world), 3, tmp_path / "whole")
    for num_views, blocks in ((3, 1), (2, 3)):
        with monkeypatch.context() as patch:
            Counting(patch, calls=1 + blocks * num_views)
            with pytest.raises(RuntimeError, match="killed"):
                build_target_cache(builder_of(world), num_views, tmp_path / "cut")
    cut = build_target_cache(builder_of(world), 3, tmp_path / "cut")
    assert bytes_of(cut) == bytes_of(whole)
    assert not list(cut.glob(f"{DONE_FILE}*"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (dict(shards="f" * 64), "other shards"),
        (dict(teacher="f" * 64), "another teacher"),
        (dict(seed=1), r"another view seed \(0, not 1\)"),
        (dict(color_jitter=0.2), "another color jitter of views"),
        (dict(view_version=99), r"another view version \(\d, not 99\)"),
        (dict(top=2), "another number of logits"),
    ],
)
def test_other_answers_are_refused_by_name(
    world: World, kept: dict[str, Path], other: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        TargetCache(kept["logits"], replace(builder_of(world).key, **other), VIEWS)
    assert find_targets(
        kept["logits"].parent, world[0], replace(builder_of(world).key, **other)
    ) is None  # fmt: skip


def test_too_few_views_and_cut_files_are_refused(world: World, tmp_path: Path) -> None:
    place = build_target_cache(builder_of(world), 1, tmp_path)
    with pytest.raises(ArtifactError, match=r"of 1 views, not of 2: `winnow targets --views 2`"):
        TargetCache(place, builder_of(world).key, 2)
    path = place / file_name(0, "logits")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match="has not the"):
        TargetCache(place, builder_of(world).key, 1)


def test_a_full_disk_is_told_beforehand(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=100))
    with pytest.raises(OSError, match=r"need 0\.00 GB.*--views 0"):
        build_target_cache(builder_of(world), 1, tmp_path)


def test_verify_asks_again(world: World, tmp_path: Path) -> None:
    who = builder_of(world, kind="features")
    place = build_target_cache(who, 2, tmp_path)
    lines = list(verify_targets(who, place))
    assert [line.split(":")[0] for line in lines] == ["logits", "features"]
    assert all("120 views computed again" in line for line in lines)


def test_the_command_that_verifies_takes_kept_answers_and_nets(
    world: World, tmp_path: Path
) -> None:
    place = build_target_cache(builder_of(world), 2, tmp_path)
    for path, said in ((place, "targets, 2 files"), (world[1].directory, "teacher, 1 files")):
        result = CliRunner().invoke(winnow.app, ["verify", str(path)])
        assert result.exit_code == 0, result.output
        assert f"{said}, every digest as the card says" in result.output
    spoil_values(place)
    result = CliRunner().invoke(winnow.app, ["verify", str(place)])
    assert (result.exit_code, "sha256 differs" in result.output) == (3, True)
    (place / file_name(0, "logits")).unlink()
    result = CliRunner().invoke(winnow.app, ["verify", str(place)])
    assert (result.exit_code, "is missing" in result.output) == (3, True)


def spoil_values(place: Path) -> None:
    path = place / file_name(1, "logits")
    array = np.load(path, mmap_mode="r+")
    array[:, 0] += 5
    array.flush()


def spoil_values_and_card(place: Path) -> None:
    spoil_values(place)
    card = artifact.read_json(place / "card.json")
    for file in card["files"]:
        file["sha256"] = artifact.sha256(place / file["name"])
    artifact.write_json(place / "card.json", card)


@pytest.mark.parametrize(
    ("spoil", "message"), [(spoil_values, "sha256"), (spoil_values_and_card, "computed again")]
)
def test_verify_finds_what_is_wrong(
    world: World, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    who = builder_of(world)
    place = build_target_cache(who, 2, tmp_path)
    spoil(place)
    with pytest.raises(ArtifactError, match=message):
        list(verify_targets(who, place))


@given(st.integers(1, 20), st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_the_largest_logits_and_the_mass_of_the_others_are_kept(top: int, seed: int) -> None:
    logits = 4 * torch.randn(5, 20, generator=torch.Generator().manual_seed(seed))
    parts = top_logits(logits, top)
    assert (len(parts) == 1) == (top == 20)
    if top == 20:
        assert torch.equal(parts["logits"], logits.half())
        return
    found = full_logits(parts["logits"].float(), parts["classes"], parts["rest"], 20)
    best = logits.topk(top, dim=1).indices
    wanted = logits.half().float()
    assert torch.equal(found.gather(1, best), wanted.gather(1, best))
    torch.testing.assert_close(
        found.softmax(1).gather(1, best), logits.softmax(1).gather(1, best), rtol=0.02, atol=1e-4
    )
    others = torch.ones_like(found).scatter(1, best, 0).bool()
    tail = found[others].view(5, -1)
    assert torch.equal(tail, tail[:, :1].expand_as(tail))


def test_many_classes_are_cut(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "FULL_CLASSES", 2)
    who = builder_of(world, top=2)
    place = build_target_cache(who, VIEWS, tmp_path)
    assert np.load(place / file_name(0, "classes")).dtype == np.int32
    cached = cached_of(world, place, "logits", top=2)
    online = OnlineTargets(teacher_function(world[1], "logits", "cpu"))
    for seen in loader_of(world).steps(0, 3):
        # Of three classes the one that is not kept is alone in the tail: nothing is lost.
        ours, theirs = cached(seen).logits_BC, online(seen).logits_BC
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.05)
