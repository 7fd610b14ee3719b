"""Shards, and a student that was trained on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import distillation, training

pytest.importorskip("onnx", reason="needs the extra: pip install 'winnow-distill[export]'")
pytest.importorskip("onnxruntime", reason="needs the extra winnow-distill[export]")
pytest.importorskip("onnxscript", reason="needs the extra winnow-distill[export]")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make runs with the shards `demo` and the student `resnet8x4`."""
    runs = tmp_path_factory.mktemp("export") / "runs"
    teacher = distillation.make_teacher(runs / "teachers" / "mentor")
    shards = distillation.make_shards(runs / "shards" / "demo", teacher)
    training.run((shards, teacher), runs / "students", "kd", ("resnet8x4",), steps=8)
    return runs
