"""Students beside each other: one pass, and what a person gets of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill.evaluation import accuracy, report
from distill.evaluation.accuracy import evaluate_net, evaluate_nets
from distill.evaluation.compare import compare_students, find_student, find_students
from indexes import devices
from indexes.images import decode
from indexes.images.decode import Geometry, load_view
from indexes.models.net import build_net
from indexes.models.teacher import Teacher, TeacherError, load_teacher, save_teacher
from indexes.sources.spec import SourceError
from tests.support import distillation

pytestmark = pytest.mark.usefixtures("one_thread")


def make_set(directory: Path, num: int = 20) -> str:
    """A folder per class; what is painted as class k lies in folder k, but for every fifth."""
    for number in range(num):
        place = directory / distillation.CLASSES[(number + (number % 5 == 0)) % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(distillation.paint(number, 40))
    return str(directory)


def make_student(directory: Path, builder: str, size: int = 32, **card: Any) -> Teacher:
    net = build_net(builder, num_classes=3)
    save_teacher(directory, net, input_size=size, **{"classes": distillation.CLASSES, **card})
    return load_teacher(directory)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, four students of three geometries, and a labeled set with two bad files."""
    place = tmp_path_factory.mktemp("standings")
    distillation.make_teacher(place / "teachers" / "master")
    distillation.make_teacher(place / "students" / "small", seed=7)
    distillation.make_teacher(place / "students" / "smaller", seed=9, size=16)
    make_student(place / "students" / "large", "resnet14")
    make_student(place / "students" / "cropped", "resnet20", crop_frac=0.8)
    make_set(place / "val")
    (place / "val" / "ant" / "bad.png").write_bytes(distillation.paint(0)[:60])
    (place / "val" / "bee" / "none.png").write_bytes(b"")
    return place


def everyone(runs: Path) -> list[Path]:
    return [runs / "students" / name for name in ("large", "small", "cropped", "smaller")]


def test_one_pass_says_what_single_ones_say(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda device: False)  # batches round alike
    teacher = load_teacher(runs / "teachers" / "master")
    nets = [load_teacher(one) for one in everyone(runs)]
    alone = [evaluate_net(net, str(runs / "val"), teacher=teacher) for net in nets]
    decoded: list[Geometry] = []  # appended to by threads
    asked: Counter[Path] = Counter()
    load, call = load_view, Teacher.__call__

    def counted(data: bytes, geometry: Geometry) -> Any:
        decoded.append(geometry)
        return load(data, geometry)

    def heard(self: Teacher, pixels: Any) -> Any:
        asked[self.directory] += len(pixels)
        return call(self, pixels)

    monkeypatch.setattr(decode, "load", counted)
    monkeypatch.setattr(Teacher, "__call__", heard)
    monkeypatch.setattr(accuracy, "BATCH", 8)
    together = evaluate_nets(nets, str(runs / "val"), teacher=teacher)
    for one, other in zip(together, alone, strict=False):
        assert one == replace(other, ece=one.ece)
        assert one.ece == pytest.approx(other.ece, abs=1e-6)  # sums of another batch size
    assert len({one.top1 for one in together}) > 1
    assert set(asked.values()) == {20}, "each net sees each image once"
    # The two bad files fail at the first geometry.
    first, *others = (decoded.count(one) for one in dict.fromkeys(net.geometry for net in nets))
    assert (first, others) == (22, [20, 20])
    assert together[-1].top1 == evaluate_net(teacher, str(runs / "val")).top1


def test_standings_are_sorted_and_marked(runs: Path) -> None:
    teacher = load_teacher(runs / "teachers" / "master")
    twice = [*everyone(runs), runs / "students" / ".." / "students" / "small"]
    found = compare_students(twice, str(runs / "val"), teacher, device="cpu")
    assert [one.name for one in found.students] == ["smaller", "small", "large", "cropped"]
    for one in found.students:
        beaten = any(
            other.result.top1 >= one.result.top1
            and other.cost.num_macs <= one.cost.num_macs
            and (other.result.top1, other.cost.num_macs) != (one.result.top1, one.cost.num_macs)
            for other in found.students
        )
        assert one.leads is not beaten
    assert found.teacher is not None
    assert not found.teacher.leads
    assert found.teacher.result.agreement is None


def test_of_several_the_unfinished_are_left_out(
    runs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = next(path.parent for path in runs.rglob("card.json") if "students" in path.parts)
    (tmp_path / "diverged").mkdir()
    (tmp_path / "diverged" / "log.jsonl").write_text("")
    words = [str(tmp_path / "diverged"), str(whole)]
    assert find_students(words, runs) == [whole]
    assert f"{tmp_path / 'diverged'}: left out" in capfd.readouterr().err
    assert find_students(words[:1], runs) == [tmp_path / "diverged"]
    with pytest.raises(TeacherError, match="diverged"):
        load_teacher(tmp_path / "diverged")
    with pytest.raises(TeacherError, match="nowhere"):
        find_students([*words, str(tmp_path / "nowhere")], runs)


def test_of_one_name_the_parents_tell(runs: Path, tmp_path: Path) -> None:
    other = make_student(tmp_path / "other" / "small", "resnet8")
    found = compare_students(
        [runs / "students" / "small", other.directory], str(runs / "val"), None, device="cpu"
    )
    assert {one.name for one in found.students} == {"students/small", "other/small"}


def test_told_and_written(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = load_teacher(runs / "teachers" / "master")
    chosen = everyone(runs)[:2]
    report.report_students(chosen, str(runs / "val"), teacher, runs=tmp_path, device="cpu")
    (place,) = (tmp_path / "evaluations").iterdir()
    assert re.fullmatch(r"val-[0-9a-f]{10}", place.name)
    assert sorted(one.name for one in place.iterdir()) == [
        "pareto.png", "report.html", "table.json", "table.md",
    ]  # fmt: skip
    body = json.loads((place / "table.json").read_text())
    assert [one["name"] for one in body["students"]] == ["small", "large"]
    for one in body["students"]:
        beside = json.loads((Path(one["directory"]) / "evaluation.json").read_text())
        assert beside == {
            "labeled": str(runs / "val"), "student_digest": one["digest"], **one["result"],
            "cost": one["cost"],
        }  # fmt: skip
        assert list(beside["cost"]["images_per_second"]) == ["1", "64"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["student", "top-1", "%"]
    assert "top-5" not in lines[0]
    assert [line.split()[0] for line in lines[1:4]] == ["small", "large", "master"]
    assert "20 images" in lines[4]
    assert "1 dropped as empty" in lines[4]
    assert str(place / "report.html") in lines[-1]
    again = tmp_path / "again"
    report.report_students(chosen[::-1], str(runs / "val"), teacher, runs=tmp_path, device="cpu")
    report.report_students(
        chosen, str(runs / "val"), teacher, runs=tmp_path, out=again, device="cpu"
    )
    assert len(list((tmp_path / "evaluations").iterdir())) == 1, "the order says nothing"
    assert (again / "report.html").is_file()


def test_of_one_student_out_is_a_file(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other, *_ = everyone(runs)
    report.report_students(
        [one], str(runs / "val"), None, runs=tmp_path, out=tmp_path / "x", device="cpu"
    )
    result = json.loads((tmp_path / "x").read_text())
    printed = capsys.readouterr().out
    assert f"{one} on {runs / 'val'}: 20 images, top-1 {100 * result['top1']:.2f} %" in printed
    assert f"(ECE) {100 * result['ece']:.2f} %" in printed
    assert f"{result['cost']['num_parameters'] / 1e6:.3f} M parameters" in printed
    assert "agreement" not in printed
    assert not (tmp_path / "evaluations").exists()
    with pytest.raises(ValueError, match="x is a file: for several students name a directory"):
        report.report_students(
            [one, other], str(runs / "val"), None, runs=tmp_path, out=tmp_path / "x", device="cpu"
        )
    with pytest.raises(ValueError, match="is a directory: for one student name a file"):
        report.report_students(
            [one], str(runs / "val"), None, runs=tmp_path, out=tmp_path, device="cpu"
        )


def test_slips_are_told_before_anything_is_computed(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = runs / "students" / "small"
    turned = make_student(tmp_path / "turned", "resnet8", classes=distillation.CLASSES[::-1])
    (tmp_path / "cut").mkdir()

    def refuse(*_: object) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr(decode, "load", refuse)
    for directories, labeled, teacher, message in (
        ([good, turned.directory], runs / "val", None, "turned have different classes"),
        ([good], runs / "val", turned, "turned have different classes"),
        ([good, tmp_path / "cut"], runs / "val", None, "cut has no card.json"),
        ([good, tmp_path / "none"], runs / "val", None, "none: there is no such directory"),
        ([good], tmp_path / "nowhere", None, "nowhere: no such file"),
    ):
        with pytest.raises(ValueError, match=message):
            compare_students(directories, str(labeled), teacher, device="cpu")
    assert find_student("small", runs) == good
    assert find_student(str(good), tmp_path) == good
    assert find_student("master", runs) == runs / "teachers" / "master"
    with pytest.raises(TeacherError, match=r"no student 'smal'.* Did you mean 'small'"):
        find_student("smal", runs)


def test_labels_out_of_range_and_nothing_to_see(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "few" / "dog").mkdir(parents=True)
    (tmp_path / "few" / "dog" / "0.png").write_bytes(distillation.paint(0))
    with pytest.raises(SourceError, match="'dog' is none of the 3 classes"):
        compare_students(everyone(runs), str(tmp_path / "few"), None, device="cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no tar"):
        compare_students(everyone(runs), str(tmp_path / "empty"), None, device="cpu")
