"""Training a teacher: it learns the classes, is reproducible, and counts dropped images."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.evaluation.accuracy import evaluate_net
from distill.teachers.config import TrainTeacherConfig
from distill.teachers.train_teacher import train_teacher
from indexes.artifact import ArtifactError
from tests.support import distillation
from tests.support.labeled import make_labeled

pytestmark = pytest.mark.usefixtures("one_thread")


def config_of(labeled: str, out: Path, **options: Any) -> TrainTeacherConfig:
    given = {"builder": "resnet8", "device": "cpu", **options}
    return TrainTeacherConfig(labeled=labeled, classes=distillation.CLASSES, out=out, **given)


def test_training_learns_and_is_reproducible(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labeled = make_labeled(tmp_path / "set", 48)
    (tmp_path / "set" / "ant" / "bad.png").write_bytes(b"")
    options = {"epochs": 12, "batch_size": 16, "lr": 0.05}
    before = torch.get_rng_state()
    caplog.set_level(logging.INFO, logger="distill")
    first, second = (
        train_teacher(config_of(labeled, tmp_path / name, **options)) for name in ("a", "b")
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert "dropped 1 as empty" in caplog.text
    assert first.card.digest == second.card.digest
    assert first.card.mean != (0.485, 0.456, 0.406)
    assert evaluate_net(first, labeled).top1 > 0.7, "a fifth of the labels are wrong"
    train_teacher(config_of(labeled, tmp_path / "a", **options))
    assert "already holds the net" in caplog.text
    with pytest.raises(ArtifactError, match=r"recipe\.seed was 0, is 1"):
        train_teacher(config_of(labeled, tmp_path / "a", seed=1, **options))


def test_divergence_raises(tmp_path: Path) -> None:
    labeled = make_labeled(tmp_path / "set", 12)
    with pytest.raises(ValueError, match="lower --lr"):
        train_teacher(config_of(labeled, tmp_path / "a", epochs=6, batch_size=4, lr=1e30))
    assert not (tmp_path / "a" / "card.json").exists()
