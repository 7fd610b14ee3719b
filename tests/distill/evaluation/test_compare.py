"""Comparison of students: one pass over the images, a list sorted by cost, and the Pareto front."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill.evaluation import accuracy
from distill.evaluation.accuracy import evaluate_net, evaluate_nets
from distill.evaluation.compare import (
    compare_students,
    find_student,
    find_students,
    unique_names,
)
from indexes import devices
from indexes.images.decode import Geometry, load_view
from indexes.models.teacher import Teacher, load_teacher
from indexes.plugins import UnknownName
from tests.support.comparisons import make_comparison

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("large", "small", "cropped", "smaller")


def load_students(runs: Path) -> list[Teacher]:
    return [load_teacher(runs / "students" / name) for name in NAMES]


def test_one_pass_gives_the_results_of_separate_passes(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In float32, batches of different sizes have the same rounding.
    monkeypatch.setattr(devices, "has_bf16", lambda device: False)
    teacher = load_teacher(runs / "teachers" / "mentor")
    nets = load_students(runs)
    separate = [evaluate_net(net, str(runs / "val"), teacher=teacher) for net in nets]
    decoded: list[Geometry] = []  # threads append to it
    num_seen: Counter[Path] = Counter()
    call = Teacher.__call__

    def counted(data: bytes, geometry: Geometry) -> Any:
        decoded.append(geometry)
        return load_view(data, geometry)

    def recorded(self: Teacher, pixels: Any) -> Any:
        num_seen[self.directory] += len(pixels)
        return call(self, pixels)

    monkeypatch.setattr(accuracy, "load_view", counted)
    monkeypatch.setattr(Teacher, "__call__", recorded)
    together = evaluate_nets(nets, str(runs / "val"), teacher=teacher, batch_size=8)
    for result, single in zip(together, separate, strict=False):
        assert result == replace(single, ece=result.ece)
        assert result.ece == pytest.approx(single.ece, abs=1e-6)  # The batch size changes the sums.
    assert len({result.top1 for result in together}) > 1
    assert set(num_seen.values()) == {20}, "each net sees each image once"
    # The two unreadable files fail at the first geometry, so no other geometry decodes them.
    first, *others = (decoded.count(view) for view in dict.fromkeys(net.geometry for net in nets))
    assert (first, others) == (22, [20, 20])
    assert together[-1].top1 == evaluate_net(teacher, str(runs / "val")).top1


def test_students_are_sorted_by_cost_and_marked_on_the_front(runs: Path) -> None:
    teacher = load_teacher(runs / "teachers" / "mentor")
    comparison = compare_students(load_students(runs), str(runs / "val"), teacher, device="cpu")
    students = comparison.students
    assert [student.name for student in students] == ["smaller", "small", "large", "cropped"]
    points = [(student.result.top1, student.cost.num_macs) for student in students]
    for student, (top1, macs) in zip(students, points, strict=True):
        is_beaten = any(
            other_top1 >= top1 and other_macs <= macs and (other_top1, other_macs) != (top1, macs)
            for other_top1, other_macs in points
        )
        assert student.pareto is not is_beaten
    assert comparison.teacher is not None
    assert not comparison.teacher.pareto
    assert comparison.teacher.result.agreement is None


def test_unfinished_students_are_left_out_of_a_comparison(
    runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finished, diverged = runs / "students" / "small", tmp_path / "diverged"
    never_started = tmp_path / "never-started"
    for directory in (diverged, never_started):
        directory.mkdir()
    (diverged / "log.jsonl").write_text("")
    (never_started / ".lock").touch()
    with caplog.at_level(logging.WARNING, logger="distill"):
        students = [str(diverged), str(never_started), str(finished)]
        assert find_students(students, runs) == [finished]
    assert f"{diverged}: left out" in caplog.text
    assert f"{never_started}: left out" in caplog.text
    assert find_students([diverged], runs) == [diverged]
    with pytest.raises(UnknownName, match="nowhere"):
        find_students([diverged, finished, str(tmp_path / "nowhere")], runs)


def test_a_student_that_is_named_twice_is_listed_once(runs: Path) -> None:
    small = runs / "students" / "small"
    assert find_students([small, small / ".." / "small", "small"], runs) == [small]
    opened = load_teacher(small)
    assert find_students([opened], runs) == [opened]


def test_a_student_is_found_by_name_or_path(runs: Path, tmp_path: Path) -> None:
    small = runs / "students" / "small"
    assert find_student("small", runs) == small
    assert find_student(str(small), tmp_path) == small
    assert find_student("mentor", runs) == runs / "teachers" / "mentor"
    with pytest.raises(UnknownName, match=r"no student 'smal'.* Did you mean 'small'"):
        find_student("smal", runs)


def test_equal_names_are_distinguished_by_their_parents(tmp_path: Path) -> None:
    paths = [tmp_path / "students" / "small", tmp_path / "other" / "small", tmp_path / "large"]
    assert unique_names(paths) == ["students/small", "other/small", "large"]


def test_to_pandas_has_a_row_for_each_student() -> None:
    comparison = make_comparison(4)
    table = comparison.to_pandas()
    assert list(table.index) == [student.name for student in comparison.students]
    assert list(table["num_macs"]) == sorted(table["num_macs"])
    assert list(table["pareto"]) == [student.pareto for student in comparison.students]
    assert table["images_per_second_at_64"].iloc[0] == 1234.5
    assert table[["ece", "agreement", "num_parameters", "num_bytes"]].notna().all(axis=None)
