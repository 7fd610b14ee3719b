"""The demo in small: every step of the main job, the table, and a second run that does nothing."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

import winnow_demo
from pipeline.corpora import demo as world


def test_demo_in_small(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(world, "NUM_PARTS", 1)
    monkeypatch.setattr(winnow_demo, "LOST_IMAGES", 300)
    monkeypatch.setattr(winnow_demo, "TEST_IMAGES", 100)
    monkeypatch.setattr(winnow_demo, "TEACHER", "resnet8")
    monkeypatch.setattr(winnow_demo, "TEACHER_EPOCHS", 1)
    monkeypatch.setattr(winnow_demo, "STUDENTS", ("resnet8",))
    monkeypatch.setattr(winnow_demo, "KEPT_IMAGES", 200)
    monkeypatch.setattr(winnow_demo, "STEPS", 4)
    winnow_demo.run(tmp_path, seeds=2)
    printed = capfd.readouterr().out
    for row in (
        "teacher",
        "winnow",
        "random",
        "entropy_top",
        "winnow - random",
        "winnow - entropy_top",
    ):
        assert f"\n{row} " in printed
    assert not list((tmp_path / "lost").iterdir()), "the lost original is lost"
    cells = json.loads((tmp_path / "demo.json").read_text())["cells"]
    assert [len(cell["accuracies"]) for cell in cells] == [2, 2, 2]
    winnow_demo.run(tmp_path, seeds=2)
    again = capfd.readouterr().out
    assert sum("shards: unchanged" in message for message in caplog.messages) == 3
    assert (
        again.split("test accuracy")[1].split("\nin ")[0]
        == (printed.split("test accuracy")[1].split("\nin ")[0])
    )


def test_the_table_tells_when_a_control_wins() -> None:
    cells = [
        winnow_demo.Cell(method, student, (share, share + 0.1))
        for method, share in (("winnow", 0.5), ("random", 0.4), ("entropy_top", 0.6))
        for student in winnow_demo.STUDENTS
    ]
    lines = list(winnow_demo.table(0.9, cells, seeds=2))
    assert lines[-1] == "here entropy_top wins, a control"
    margins = next(line for line in lines if line.startswith("winnow - entropy_top"))
    assert margins.split()[-1] == "-10.0"
