"""Students beside each other: one pass, and what a person gets of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill.evaluation import evaluate, report, standings
from indexes import devices, images, nets, teachers
from indexes.sources import SourceError
from tests.distill import worlds

pytestmark = pytest.mark.usefixtures("one_thread")


def make_set(directory: Path, num: int = 20) -> str:
    """A folder per class; what is painted as class k lies in folder k, but for every fifth."""
    for number in range(num):
        place = directory / worlds.CLASSES[(number + (number % 5 == 0)) % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(worlds.paint(number, 40))
    return str(directory)


def make_student(directory: Path, builder: str, size: int = 32, **card: Any) -> teachers.Teacher:
    net = nets.build(builder, num_classes=3)
    teachers.save(directory, net, input_size=size, **{"classes": worlds.CLASSES, **card})
    return teachers.open(directory)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, four students of three geometries, and a labelled set with two bad files."""
    place = tmp_path_factory.mktemp("standings")
    worlds.make_teacher(place / "teachers" / "master")
    worlds.make_teacher(place / "students" / "small", seed=7)
    worlds.make_teacher(place / "students" / "smaller", seed=9, size=16)
    make_student(place / "students" / "large", "resnet14")
    make_student(place / "students" / "cropped", "resnet20", crop_frac=0.8)
    make_set(place / "val")
    (place / "val" / "ant" / "bad.png").write_bytes(worlds.paint(0)[:60])
    (place / "val" / "bee" / "none.png").write_bytes(b"")
    return place


def everyone(runs: Path) -> list[Path]:
    return [runs / "students" / name for name in ("large", "small", "cropped", "smaller")]


def test_one_pass_says_what_single_ones_say(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda device: False)  # batches round alike
    teacher = teachers.open(runs / "teachers" / "master")
    nets = [teachers.open(one) for one in everyone(runs)]
    alone = [evaluate.evaluate(net, str(runs / "val"), teacher=teacher) for net in nets]
    decoded: list[images.Geometry] = []  # appended to by threads
    asked: Counter[Path] = Counter()
    load, call = images.load, teachers.Teacher.__call__

    def counted(data: bytes, geometry: images.Geometry) -> Any:
        decoded.append(geometry)
        return load(data, geometry)

    def heard(self: teachers.Teacher, pixels: Any) -> Any:
        asked[self.directory] += len(pixels)
        return call(self, pixels)

    monkeypatch.setattr(images, "load", counted)
    monkeypatch.setattr(teachers.Teacher, "__call__", heard)
    monkeypatch.setattr(evaluate, "BATCH", 8)
    together = evaluate.evaluate_all(nets, str(runs / "val"), teacher=teacher)
    for one, other in zip(together, alone, strict=False):
        assert one == replace(other, ece=one.ece)
        assert one.ece == pytest.approx(other.ece, abs=1e-6)  # sums of another batch size
    assert len({one.top1 for one in together}) > 1
    assert set(asked.values()) == {20}, "each net sees each image once"
    # The two bad files fail at the first geometry.
    first, *others = (decoded.count(one) for one in dict.fromkeys(net.geometry for net in nets))
    assert (first, others) == (22, [20, 20])
    assert together[-1].top1 == evaluate.evaluate(teacher, str(runs / "val")).top1


def test_standings_are_sorted_and_marked(runs: Path) -> None:
    teacher = teachers.open(runs / "teachers" / "master")
    twice = [*everyone(runs), runs / "students" / ".." / "students" / "small"]
    found = standings.compare(twice, str(runs / "val"), teacher, device="cpu")
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
    assert standings.find_all(words, runs) == [whole]
    assert f"{tmp_path / 'diverged'}: left out" in capfd.readouterr().err
    assert standings.find_all(words[:1], runs) == [tmp_path / "diverged"]
    with pytest.raises(teachers.TeacherError, match="diverged"):
        teachers.open(tmp_path / "diverged")
    with pytest.raises(teachers.TeacherError, match="nowhere"):
        standings.find_all([*words, str(tmp_path / "nowhere")], runs)


def test_of_one_name_the_parents_tell(runs: Path, tmp_path: Path) -> None:
    other = make_student(tmp_path / "other" / "small", "resnet8")
    found = standings.compare(
        [runs / "students" / "small", other.directory], str(runs / "val"), None, device="cpu"
    )
    assert {one.name for one in found.students} == {"students/small", "other/small"}


def test_told_and_written(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = teachers.open(runs / "teachers" / "master")
    chosen = everyone(runs)[:2]
    report.tell(chosen, str(runs / "val"), teacher, runs=tmp_path, device="cpu")
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
            "labelled": str(runs / "val"), "student_digest": one["digest"], **one["result"],
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
    report.tell(chosen[::-1], str(runs / "val"), teacher, runs=tmp_path, device="cpu")
    report.tell(chosen, str(runs / "val"), teacher, runs=tmp_path, out=again, device="cpu")
    assert len(list((tmp_path / "evaluations").iterdir())) == 1, "the order says nothing"
    assert (again / "report.html").is_file()


def test_of_one_student_out_is_a_file(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other, *_ = everyone(runs)
    report.tell([one], str(runs / "val"), None, runs=tmp_path, out=tmp_path / "x", device="cpu")
    result = json.loads((tmp_path / "x").read_text())
    printed = capsys.readouterr().out
    assert f"{one} on {runs / 'val'}: 20 images, top-1 {100 * result['top1']:.2f} %" in printed
    assert f"(ECE) {100 * result['ece']:.2f} %" in printed
    assert f"{result['cost']['num_parameters'] / 1e6:.3f} M parameters" in printed
    assert "agreement" not in printed
    assert not (tmp_path / "evaluations").exists()
    with pytest.raises(ValueError, match="x is a file: for several students name a directory"):
        report.tell(
            [one, other], str(runs / "val"), None, runs=tmp_path, out=tmp_path / "x", device="cpu"
        )
    with pytest.raises(ValueError, match="is a directory: for one student name a file"):
        report.tell([one], str(runs / "val"), None, runs=tmp_path, out=tmp_path, device="cpu")


def test_slips_are_told_before_anything_is_computed(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = runs / "students" / "small"
    turned = make_student(tmp_path / "turned", "resnet8", classes=worlds.CLASSES[::-1])
    (tmp_path / "cut").mkdir()

    def refuse(*_: object) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr(images, "load", refuse)
    for directories, labelled, teacher, message in (
        ([good, turned.directory], runs / "val", None, "turned have different classes"),
        ([good], runs / "val", turned, "turned have different classes"),
        ([good, tmp_path / "cut"], runs / "val", None, "cut has no card.json"),
        ([good, tmp_path / "none"], runs / "val", None, "none: there is no such directory"),
        ([good], tmp_path / "nowhere", None, "nowhere: no such file"),
    ):
        with pytest.raises(ValueError, match=message):
            standings.compare(directories, str(labelled), teacher, device="cpu")
    assert standings.find("small", runs) == good
    assert standings.find(str(good), tmp_path) == good
    assert standings.find("master", runs) == runs / "teachers" / "master"
    with pytest.raises(teachers.TeacherError, match=r"no student 'smal'.* Did you mean 'small'"):
        standings.find("smal", runs)


def test_labels_out_of_range_and_nothing_to_see(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "few" / "dog").mkdir(parents=True)
    (tmp_path / "few" / "dog" / "0.png").write_bytes(worlds.paint(0))
    with pytest.raises(SourceError, match="'dog' is none of the 3 classes"):
        standings.compare(everyone(runs), str(tmp_path / "few"), None, device="cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no tar"):
        standings.compare(everyone(runs), str(tmp_path / "empty"), None, device="cpu")
