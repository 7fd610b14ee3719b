"""A small demo runs every step and prints the table; a second run reuses all results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import winnow_demo
from pipeline.corpora import demo as world

SMALL = winnow_demo.Scale(
    num_lost=300,
    num_test=100,
    teacher="resnet8",
    teacher_epochs=1,
    students=("resnet8",),
    n=200,
    steps=4,
    seeds=2,
)


@pytest.mark.slow
def test_a_small_demo_runs_and_is_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(world, "NUM_PARTS", 1)
    lines = list(winnow_demo.run(tmp_path, SMALL).lines)
    for row in (
        "teacher",
        "winnow",
        "random",
        "entropy_top",
        "winnow - random",
        "winnow - entropy_top",
    ):
        assert any(line.startswith(f"{row} ") for line in lines), row
    assert not list((tmp_path / "lost").iterdir()), "the lost original is deleted"
    cells = json.loads((tmp_path / "demo.json").read_text())["cells"]
    assert [len(cell["accuracies"]) for cell in cells] == [2, 2, 2]
    caplog.clear()
    with caplog.at_level("INFO"):
        repeated = list(winnow_demo.run(tmp_path, SMALL).lines)
    assert caplog.text.count("shards: unchanged") == 3
    assert repeated[:-1] == lines[:-1], "all lines except the run time are equal"


def test_the_table_names_a_winning_control() -> None:
    cells = [
        winnow_demo.Cell(method, student, (share, share + 0.1))
        for method, share in (("winnow", 0.5), ("random", 0.4), ("entropy_top", 0.6))
        for student in SMALL.students
    ]
    lines = list(winnow_demo.table(0.9, cells, SMALL))
    assert lines[-1] == "best mean accuracy: entropy_top (a control)"
    margins = next(line for line in lines if line.startswith("winnow - entropy_top"))
    assert margins.split()[-1] == "-10.0"
