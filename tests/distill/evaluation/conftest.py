"""Students of three geometries, their teacher, and a labeled set with two unreadable files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import distillation
from tests.support.labeled import make_labeled, make_student


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make runs with a teacher, four students and the labeled set `val`."""
    runs = tmp_path_factory.mktemp("runs")
    distillation.make_teacher(runs / "teachers" / "mentor")
    distillation.make_teacher(runs / "students" / "small", seed=7)
    distillation.make_teacher(runs / "students" / "smaller", seed=9, size=16)
    make_student(runs / "students" / "large", "resnet14")
    make_student(runs / "students" / "cropped", "resnet20", crop_frac=0.8)
    make_labeled(runs / "val", size=40)
    (runs / "val" / "ant" / "bad.png").write_bytes(distillation.draw_image(0)[:60])
    (runs / "val" / "bee" / "none.png").write_bytes(b"")
    return runs
