"""`evaluate`: its files and results, and the mistakes that it reports before any computation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import distill.cli
from distill.evaluation import accuracy
from distill.evaluation.config import EvaluateConfig
from distill.evaluation.run import evaluate
from indexes.models.teacher import load_teacher
from indexes.sources.spec import SourceError
from tests.support import distillation
from tests.support.labeled import make_student

pytestmark = pytest.mark.usefixtures("one_thread")


def test_several_students_get_a_report(runs: Path, tmp_path: Path) -> None:
    teacher = load_teacher(runs / "teachers" / "mentor")
    students = [runs / "students" / name for name in ("large", "small")]
    options = {"labeled": runs / "val", "device": "cpu", "teacher": teacher, "runs": tmp_path}
    comparison = evaluate(EvaluateConfig(students=students, **options))
    assert comparison.report is not None
    assert comparison.report.parent == tmp_path / "evaluations"
    assert re.fullmatch(r"val-[0-9a-f]{10}", comparison.report.name)
    body = json.loads((comparison.report / "table.json").read_text())
    assert [student["name"] for student in body["students"]] == ["small", "large"]
    for student in body["students"]:
        figures = json.loads((Path(student["directory"]) / "evaluation.json").read_text())
        assert figures == {
            "labeled": str(runs / "val"), "student_digest": student["digest"],
            **student["result"], "cost": student["cost"],
        }  # fmt: skip
    assert evaluate(EvaluateConfig(students=students[::-1], **options)).report == comparison.report
    with_out = EvaluateConfig(students=students, out=tmp_path / "out", **options)
    assert evaluate(with_out).report == tmp_path / "out"
    assert (tmp_path / "out" / "report.html").is_file()


def test_out_is_a_file_for_one_student(runs: Path, tmp_path: Path) -> None:
    small, large = (runs / "students" / name for name in ("small", "large"))
    options = {"labeled": runs / "val", "device": "cpu", "runs": tmp_path}
    comparison = evaluate(EvaluateConfig(students=[small], out=tmp_path / "x", **options))
    assert comparison.report is None
    assert json.loads((tmp_path / "x").read_text())["top1"] == comparison.students[0].result.top1
    assert not (tmp_path / "evaluations").exists()
    with pytest.raises(ValueError, match="x is a file: give a directory for several students"):
        evaluate(EvaluateConfig(students=[small, large], out=tmp_path / "x", **options))
    with pytest.raises(ValueError, match="is a directory: give a file for one student"):
        evaluate(EvaluateConfig(students=[small], out=tmp_path, **options))


def test_the_command_prints_a_table_or_json(runs: Path) -> None:
    words = ["evaluate", "large", "small", str(runs / "val"), "--teacher", "mentor",
             "--runs", str(runs), "--device", "cpu"]  # fmt: skip
    result = CliRunner().invoke(distill.cli.app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["student", "top-1", "%"]
    assert "top-5" not in lines[0]
    assert [line.split()[0] for line in lines[1:4]] == ["small", "large", "mentor"]
    assert "20 images" in lines[4]
    assert "1 dropped as empty" in lines[4]
    assert "report.html" in lines[-1]
    result = CliRunner().invoke(distill.cli.app, [*words, "--json"], catch_exceptions=False)
    assert [student["name"] for student in json.loads(result.stdout)["students"]] == [
        "small", "large"
    ]  # fmt: skip


def test_mistakes_are_reported_before_anything_is_computed(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = runs / "students" / "small"
    reversed_classes = make_student(
        tmp_path / "reversed", "resnet8", classes=distillation.CLASSES[::-1]
    )
    (tmp_path / "damaged").mkdir()

    def refuse(*_: object) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr(accuracy, "load_view", refuse)
    for students, labeled, teacher, message in (
        ([good, reversed_classes], runs / "val", None, "reversed have different classes"),
        ([good], runs / "val", reversed_classes, "reversed have different classes"),
        ([tmp_path / "damaged"], runs / "val", None, "damaged has no card.json"),
        ([good, tmp_path / "none"], runs / "val", None, "no student '.*none'"),
        ([good], tmp_path / "nowhere", None, "nowhere: no such file"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(EvaluateConfig(students=students, labeled=labeled, teacher=teacher,
                                    runs=runs, device="cpu"))  # fmt: skip


def test_labels_out_of_range_and_empty_sets_are_refused(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "few" / "dog").mkdir(parents=True)
    (tmp_path / "few" / "dog" / "0.png").write_bytes(distillation.draw_image(0))
    with pytest.raises(SourceError, match="'dog' is neither one of the 3 class names"):
        evaluate(EvaluateConfig(students=["small"], labeled=tmp_path / "few", runs=runs))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no tar"):
        evaluate(EvaluateConfig(students=["small"], labeled=tmp_path / "empty", runs=runs))
