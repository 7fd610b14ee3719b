"""Targets are computed once, resumed, extended and verified."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import winnow
from distill.data import loader
from distill.targets.cache import (
    TargetCache,
    file_name,
)
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
from tests.support.targets import (
    VIEWS,
    builder_of,
    bytes_of,
)

World = tuple[Shards, Teacher]


class Counting:
    """Counts the views that the teacher computes, and fails after `calls` calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, calls: int = 10**9) -> None:
        self.num_views, self.calls = 0, calls
        compute = TargetBuilder.compute

        def counted(builder: TargetBuilder, stored: torch.Tensor, rows: Any, view: int) -> Any:
            self.calls -= 1
            if self.calls < 0:
                raise RuntimeError("killed")
            self.num_views += len(rows)
            return compute(builder, stored, rows, view)

        monkeypatch.setattr(TargetBuilder, "compute", counted)


def test_targets_are_computed_once_resumed_and_extended(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "CHUNK", 16)
    num = len(world[0])
    with monkeypatch.context() as patch:
        counting = Counting(patch)
        complete = build_target_cache(builder_of(world), VIEWS, tmp_path / "whole")
        assert counting.num_views == num * VIEWS + 1
        build_target_cache(builder_of(world), VIEWS, tmp_path / "whole")
        build_target_cache(builder_of(world), 1, tmp_path / "whole")
        assert counting.num_views == num * VIEWS + 1
    with monkeypatch.context() as patch:
        Counting(patch, calls=1 + 2 * VIEWS + 1)  # fails in the third block
        with pytest.raises(RuntimeError, match="killed"):
            build_target_cache(builder_of(world), VIEWS, tmp_path / "cut")
    cut = tmp_path / "cut" / complete.name
    assert not artifact.is_done(cut)
    with pytest.raises(ArtifactError, match=r"has no card\.json"):
        TargetCache(cut, builder_of(world).key, 1)
    with monkeypatch.context() as patch:
        counting = Counting(patch)
        build_target_cache(builder_of(world), VIEWS, tmp_path / "cut")
        assert counting.num_views == (num - 32) * VIEWS + 1
    assert bytes_of(cut) == bytes_of(complete)
    with monkeypatch.context() as patch:
        counting = Counting(patch)
        build_target_cache(builder_of(world), 1, tmp_path / "grown")
        build_target_cache(builder_of(world), VIEWS, tmp_path / "grown")
        assert counting.num_views == num * VIEWS + 2
    grown = tmp_path / "grown" / complete.name
    assert bytes_of(grown) == bytes_of(complete)
    assert (grown / "card.json").read_bytes() == (complete / "card.json").read_bytes()


def test_blocks_with_missing_files_are_computed_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "CHUNK", 16)
    with monkeypatch.context() as patch:
        Counting(patch, calls=1 + 3 * VIEWS)
        with pytest.raises(RuntimeError, match="killed"):
            build_target_cache(builder_of(world), VIEWS, tmp_path)
    (directory,) = tmp_path.iterdir()
    (marks,) = directory.glob(f"{DONE_FILE}*")
    assert np.load(marks).sum() == 3
    (directory / file_name(1, "logits")).unlink()
    with monkeypatch.context() as patch:
        counting = Counting(patch)
        build_target_cache(builder_of(world), VIEWS, tmp_path)
        assert counting.num_views == len(world[0]) * VIEWS + 1


def test_marks_belong_to_one_number_of_views(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block computed for two views has no third view, even if three were begun before."""
    monkeypatch.setattr(loader, "CHUNK", 16)
    complete = build_target_cache(builder_of(world), 3, tmp_path / "whole")
    for num_views, blocks in ((3, 1), (2, 3)):
        with monkeypatch.context() as patch:
            Counting(patch, calls=1 + blocks * num_views)
            with pytest.raises(RuntimeError, match="killed"):
                build_target_cache(builder_of(world), num_views, tmp_path / "cut")
    cut = build_target_cache(builder_of(world), 3, tmp_path / "cut")
    assert bytes_of(cut) == bytes_of(complete)
    assert not list(cut.glob(f"{DONE_FILE}*"))


def test_a_full_disk_is_reported_before_the_start(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda directory: SimpleNamespace(free=100))
    with pytest.raises(OSError, match=r"need 0\.00 GB.*--views 0"):
        build_target_cache(builder_of(world), 1, tmp_path)


def spoil_values(directory: Path) -> None:
    path = directory / file_name(1, "logits")
    array = np.load(path, mmap_mode="r+")
    array[:, 0] += 5
    array.flush()


def spoil_values_and_card(directory: Path) -> None:
    spoil_values(directory)
    card = artifact.read_json(directory / "card.json")
    for file in card["files"]:
        file["sha256"] = artifact.sha256(directory / file["name"])
    artifact.write_json(directory / "card.json", card)


def test_verify_computes_the_targets_again(world: World, tmp_path: Path) -> None:
    builder = builder_of(world, kind="features")
    directory = build_target_cache(builder, 2, tmp_path)
    lines = list(verify_targets(builder, directory))
    assert [line.split(":")[0] for line in lines] == ["logits", "features"]
    assert all("120 views computed again" in line for line in lines)


@pytest.mark.parametrize(
    ("spoil", "message"), [(spoil_values, "sha256"), (spoil_values_and_card, "computed again")]
)
def test_verify_finds_damaged_values(
    world: World, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    builder = builder_of(world)
    directory = build_target_cache(builder, 2, tmp_path)
    spoil(directory)
    with pytest.raises(ArtifactError, match=message):
        list(verify_targets(builder, directory))


def test_the_verify_command_checks_targets_and_teachers(world: World, tmp_path: Path) -> None:
    directory = build_target_cache(builder_of(world), 2, tmp_path)
    for path, summary in (
        (directory, "targets, 2 files"),
        (world[1].directory, "teacher, 1 files"),
    ):
        result = CliRunner().invoke(winnow.app, ["verify", str(path)])
        assert result.exit_code == 0, result.output
        assert f"{summary}; every digest matches the card" in result.output
    spoil_values(directory)
    result = CliRunner().invoke(winnow.app, ["verify", str(directory)])
    assert (result.exit_code, "sha256 differs" in result.output) == (3, True)
    (directory / file_name(0, "logits")).unlink()
    result = CliRunner().invoke(winnow.app, ["verify", str(directory)])
    assert (result.exit_code, "is missing" in result.output) == (3, True)
