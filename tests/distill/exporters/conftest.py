"""Shards and students of every kind, each after a few steps of its method."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import distillation, exporting

pytest.importorskip("onnx", reason="needs the extra: pip install 'winnow[export]'")
pytest.importorskip("onnxruntime", reason="needs the extra winnow[export]")
pytest.importorskip("onnxscript", reason="needs the extra winnow[export]")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUNS with shards and every student of `exporting.STUDENTS`."""
    runs = tmp_path_factory.mktemp("export") / "runs"
    teacher = distillation.make_teacher(runs / "teachers" / "master")
    shards = distillation.make_shards(runs / "shards" / "demo", teacher)
    exporting.make_students(runs, shards, teacher)
    return runs
