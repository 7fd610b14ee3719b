"""The report of a comparison: four files in a directory, and a JSON file for each student."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from distill.evaluation import report
from distill.evaluation.compare import Comparison
from tests.support.comparisons import make_comparison


def comparison_in(directory: Path, num: int) -> Comparison:
    comparison = make_comparison(num)
    students = [replace(s, directory=directory / str(n)) for n, s in enumerate(comparison.students)]
    return replace(comparison, students=tuple(students))


def test_a_report_is_four_files(tmp_path: Path) -> None:
    report.write(tmp_path / "out", make_comparison(3))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "pareto.png", "report.html", "table.json", "table.md",
    ]  # fmt: skip
    body = json.loads((tmp_path / "out" / "table.json").read_text())
    assert body.keys() == {"labeled", "students", "teacher"}


def test_figures_are_written_into_the_directory_of_each_student(tmp_path: Path) -> None:
    comparison = comparison_in(tmp_path, 2)
    report.write_results(comparison)
    for number, student in enumerate(comparison.students):
        body = json.loads((tmp_path / str(number) / "evaluation.json").read_text())
        assert body["student_digest"] == student.digest
        assert body["top1"] == student.result.top1
        assert list(body["cost"]["images_per_second"]) == ["1", "64"]


def test_an_unwritable_directory_gives_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "0").write_text("a file where the student's directory should be")
    comparison = comparison_in(tmp_path, 2)
    with caplog.at_level(logging.WARNING, logger="distill"):
        report.write_results(comparison)
    assert "was not written beside the student" in caplog.text
    assert (tmp_path / "1" / "evaluation.json").is_file()
    with pytest.raises(OSError, match="0"):
        report.write_results(comparison_in(tmp_path, 1), tmp_path / "0" / "x.json")


def test_the_default_directory_depends_on_the_students_and_not_on_their_order(
    tmp_path: Path,
) -> None:
    comparison = make_comparison(3)
    first = report.default_directory(tmp_path, comparison)
    assert first.parent == tmp_path / "evaluations"
    assert first.name.startswith("set-")
    reordered = replace(comparison, students=comparison.students[::-1])
    assert report.default_directory(tmp_path, reordered) == first
    fewer = replace(comparison, students=comparison.students[:2])
    assert report.default_directory(tmp_path, fewer) != first
