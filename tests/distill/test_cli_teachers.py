"""The commands that make teachers, from the command line to the directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import distill.cli
from indexes.models.teacher import load_teacher
from tests.support import distillation
from tests.support.labeled import make_labeled

pytestmark = pytest.mark.usefixtures("one_thread")


def call(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(distill.cli.app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, " ".join(result.output.split())


def test_teachers_are_trained_and_imported(tmp_path: Path) -> None:
    make_labeled(tmp_path / "set", 12)
    (tmp_path / "names.txt").write_text("\n".join(distillation.CLASSES))
    code, output = call(
        "train-teacher", tmp_path / "set", "--classes", tmp_path / "names.txt",
        "--out", tmp_path / "t", "--builder", "resnet8", "--epochs", 1, "--batch-size", 4,
        "--device", "cpu",
    )  # fmt: skip
    assert code == 0, output
    trained = load_teacher(tmp_path / "t")
    torch.save(trained.net.state_dict(), tmp_path / "w.pt")
    words = ["import-teacher", "--builder", "resnet8", "--weights", tmp_path / "w.pt",
             "--classes", tmp_path / "names.txt", "--mean", "0.4 0.4 0.4"]  # fmt: skip
    code, output = call(*words, "--std", "0.2,0.2,0.2", tmp_path / "i", "--json", "-q")
    assert code == 0, output
    imported = load_teacher(tmp_path / "i")
    assert json.loads(output)["card"]["digest"] == imported.card.digest
    assert imported.card.std == (0.2, 0.2, 0.2)
    for name, value in imported.net.state_dict().items():
        assert torch.equal(value, trained.net.state_dict()[name])
    for options, code, message in (
        (["--std", "0.2", tmp_path / "j"], 1, "three numbers"),
        (["--args", "3", tmp_path / "j"], 1, "JSON object"),
        (["--builder", "timm:nonexistent", tmp_path / "j"], 1, "timm has no net"),
        (["--accuracy", 2, tmp_path / "j"], 2, "less than or equal to 1"),
        ([], 2, "Missing argument"),
    ):
        exit_code, output = call(*words, *options)
        assert exit_code == code
        assert message in output
