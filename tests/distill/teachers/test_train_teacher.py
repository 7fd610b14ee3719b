"""Teaching: learns the classes, is repeatable, counts what it drops, leaves a teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distill.evaluation.accuracy import evaluate_net
from distill.teachers.train_teacher import train_teacher
from indexes.artifact import ArtifactError
from indexes.models.teacher import load_teacher
from tests.support import distillation

pytestmark = pytest.mark.usefixtures("one_thread")


def make_set(directory: Path, num: int) -> str:
    for number in range(num):
        place = directory / distillation.CLASSES[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(distillation.paint(number))
    return str(directory)


def test_teaches_and_is_repeatable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labeled = make_set(tmp_path / "set", 48)
    (tmp_path / "set" / "ant" / "bad.png").write_bytes(b"")
    settings = {"epochs": 12, "batch_size": 16, "lr": 0.05}
    before = torch.get_rng_state()
    for name in ("a", "b"):
        train_teacher(labeled, distillation.CLASSES, "resnet8", tmp_path / name, **settings)
    assert torch.equal(torch.get_rng_state(), before)
    assert "{'empty': 1}" in capsys.readouterr().out
    first, second = (load_teacher(tmp_path / name) for name in ("a", "b"))
    assert first.card.digest == second.card.digest
    assert first.card.mean != (0.485, 0.456, 0.406)
    assert evaluate_net(first, labeled).top1 > 0.9
    train_teacher(labeled, distillation.CLASSES, "resnet8", tmp_path / "a", **settings)
    assert "holds this net already" in capsys.readouterr().out
    with pytest.raises(ArtifactError, match=r"recipe\.seed was 0, is 1"):
        train_teacher(labeled, distillation.CLASSES, "resnet8", tmp_path / "a", seed=1, **settings)


def test_divergence_is_an_error(tmp_path: Path) -> None:
    labeled = make_set(tmp_path / "set", 12)
    with pytest.raises(ValueError, match="try a lower --lr"):
        train_teacher(
            labeled,
            distillation.CLASSES,
            "resnet8",
            tmp_path / "a",
            epochs=6,
            batch_size=4,
            lr=1e30,
        )
    assert not (tmp_path / "a" / "card.json").exists()
