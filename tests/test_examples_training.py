"""The examples of training run on small data."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from distill import DistillConfig, distill
from indexes.artifact import ArtifactError
from tests.support import distillation

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_example_of_a_loss_trains_a_student(tmp_path: Path) -> None:
    teacher = distillation.make_teacher(tmp_path / "teachers" / "tiny")
    shards = distillation.make_shards(tmp_path / "shards" / "tiny", teacher)
    config = DistillConfig(
        runs=tmp_path,
        shards=shards,
        teacher=teacher,
        students=["resnet8"],
        method=str(EXAMPLES / "own_loss.py"),
        settings={"scale": 2.0},
        steps=3,
        batch_size=16,
        device="cpu",
    )
    (run,) = distill(config)
    assert run.directory == tmp_path / "students" / "tiny-own_loss-resnet8"
    assert run.is_trained
    assert run.card["record"]["inputs"]["config"] == {"scale": 2.0}
    assert {"centered", "total"} == run.log[0]["terms"].keys()
    stranger = distillation.make_teacher(tmp_path / "teachers" / "other", seed=8)
    with pytest.raises(ArtifactError, match="labeled by another teacher"):
        distill(DistillConfig(shards=shards, teacher=stranger, runs=tmp_path, device="cpu"))


def test_the_example_of_a_plain_loop_reads_the_shards(tmp_path: Path) -> None:
    from examples.plain_pytorch_loop import train

    teacher = distillation.make_teacher(tmp_path / "teacher")
    distillation.make_shards(tmp_path / "shards", teacher)
    losses = list(train(str(tmp_path / "shards"), epochs=2))
    assert len(losses) == 4
    assert all(map(math.isfinite, losses))
