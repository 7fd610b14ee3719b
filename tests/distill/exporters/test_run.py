"""`winnow export` end to end: which files it writes, keeps, refuses and replaces."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from torch import Tensor

from distill.exporters import formats
from distill.exporters.config import ExportConfig
from distill.exporters.run import export
from indexes import artifact
from indexes.images.decode import to_unit
from indexes.models.teacher import WEIGHTS, load_teacher, save_teacher
from tests.support import distillation
from tests.support.exporting import call, save_wide

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


def test_a_student_is_exported(runs: Path, tmp_path: Path) -> None:
    code, out, err = call("resnet8x4", "--runs", runs, "--out", tmp_path)
    assert code == 0, err
    assert [line.split(": ")[0] for line in out.splitlines()] == [
        str(tmp_path / name) for name in ("model.onnx", "model.pt2", "MODEL_CARD.md")
    ]
    card = artifact.read_card(tmp_path, "export")
    assert set(card["parity"]) == {"model.onnx", "model.pt2"}
    assert card["student_digest"] == load_teacher(runs / "students" / "resnet8x4").card.digest
    assert card["versions"].keys() == {"torch", "onnx", "onnxruntime"}
    for entry in card["files"]:
        assert artifact.sha256(tmp_path / entry["name"]) == entry["sha256"]
        assert (tmp_path / entry["name"]).stat().st_size == entry["bytes"]
    assert {entry["name"] for entry in card["files"]} == {*card["parity"], "MODEL_CARD.md"}


def test_a_teacher_is_exported_and_checked_on_given_images(
    runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    teacher = save_wide(tmp_path / "wide")
    (tmp_path / "set").mkdir()
    for number in range(5):
        (tmp_path / "set" / f"{number}.png").write_bytes(distillation.draw_image(number, 50))
    (tmp_path / "set" / "bad.png").write_bytes(b"no image")
    images = tmp_path / "set"
    exported = export(ExportConfig(student=teacher, formats="pt2", images=images, runs=runs))
    assert exported.directory == tmp_path / "wide" / "export"
    assert exported.files.keys() == {"model.pt2", "MODEL_CARD.md"}
    assert exported.parity["model.pt2"] <= 1e-4
    assert exported.int8 is None
    assert f"{images}: dropped 1 as corrupt" in caplog.text


def test_8_bits_are_reported(runs: Path, tmp_path: Path) -> None:
    words = "resnet8x4", "--runs", runs, "--out", tmp_path, "--int8", "dynamic", "--format", "onnx"
    code, out, err = call(*words, "--json")
    assert code == 0, err
    gain = json.loads(out)["int8"]
    assert gain["num_measured"] == 60
    assert "8 bits (dynamic)" in (tmp_path / "MODEL_CARD.md").read_text()
    code, out, _ = call(*words)
    assert f"the same class as in float32 for {100 * gain['agreement']:.1f} % of 60 images" in out
    assert len(out.splitlines()) == 3


def test_nearly_equal_logits_give_a_warning(runs: Path, tmp_path: Path) -> None:
    net = load_teacher(runs / "students" / "resnet8x4").net
    net.head[0].mul_(1e-6)
    save_teacher(
        tmp_path / "constant", net, classes=distillation.CLASSES, input_size=distillation.SIZE
    )
    words = tmp_path / "constant", "--format", "pt2", "--images", runs / "shards" / "demo"
    code, _, err = call(*words, "--runs", runs)
    assert code == 0
    assert "gives nearly the same logits for every image" in err


def test_a_second_run_exports_again_only_if_something_changed(runs: Path, tmp_path: Path) -> None:
    words = "resnet8x4", "--runs", runs, "--out", tmp_path / "out", "--format", "pt2"
    code, first_lines, _ = call(*words)
    assert code == 0
    file = tmp_path / "out" / "model.pt2"
    written = file.stat().st_mtime_ns
    code, out, err = call(*words)
    assert f"{tmp_path / 'out'}: already exported" in err
    assert out == first_lines
    assert file.stat().st_mtime_ns == written
    file.write_bytes(file.read_bytes()[:-1])
    assert "already exported" not in call(*words)[2]
    card = tmp_path / "out" / "MODEL_CARD.md"
    assert "not measured" in card.read_text()
    student = runs / "students" / "resnet8x4"
    evaluation = {
        "student_digest": load_teacher(student).card.digest, "labeled": "/data/far/val_set/",
        "num_images": 1200, "top1": 0.9, "top5": None, "agreement": 0.8, "per_class": {},
    }  # fmt: skip
    artifact.write_json(student / "evaluation.json", evaluation)
    try:
        assert "already exported" not in call(*words)[2]
    finally:
        (student / "evaluation.json").unlink()
    assert "Top-1 accuracy on far/val\\_set: 90.00 % of 1,200 images" in card.read_text()
    assert "not measured" not in card.read_text()


def test_a_failed_export_keeps_the_previous_one(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(self: formats.DeployedNet, pixels: Tensor) -> Tensor:
        return self.net(to_unit(pixels) * 0.999)[2]

    out = tmp_path / "out"
    words = "resnet8x4", "--runs", runs, "--out", out, "--format", "pt2"
    assert call(*words)[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    code, _, err = call(*words, "--images", tmp_path / "typo")
    assert (code, "typo" in err) == (1, True)
    images = runs / "shards" / "demo"
    with monkeypatch.context() as patch:
        patch.setattr(formats.DeployedNet, "forward", wrong)
        code, printed, err = call(*words, "--images", images)
        assert (code, printed) == (1, "")
        assert "logits differ by" in err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (out / ".new-killed").mkdir()
    assert call(*words, "--images", images)[0] == 0
    assert {path.name for path in out.iterdir()} == before.keys()


def test_without_shards_an_export_is_checked_on_noise_with_a_warning(
    runs: Path, tmp_path: Path
) -> None:
    student = runs / "students" / "resnet8x4"
    words = student, "--runs", tmp_path, "--out", tmp_path / "x", "--format", "pt2"
    code, out, err = call(*words)
    assert code == 0
    assert "on 64 images of noise" in out
    assert "--images is not given: the files are checked on noise" in err
    text = (tmp_path / "x" / "MODEL_CARD.md").read_text()
    assert "Shards `demo`" in text
    assert "Images: 60" in text
    code, _, err = call(student, "--runs", tmp_path, "--out", tmp_path / "y", "--int8", "static")
    assert code == 1
    assert "give images like those of the device with --images" in err
    assert not (tmp_path / "y").exists()


def test_a_missing_extra_is_named(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    words = "resnet8x4", "--runs", runs, "--out", tmp_path
    code, _, err = call(*words)
    assert (code, "needs onnxscript: pip install 'winnow-distill[export]'" in err) == (1, True)
    assert call(*words, "--format", "pt2")[0] == 0


def test_mistakes_give_one_line(runs: Path, tmp_path: Path) -> None:
    def error_of(code: int, *words: object) -> str:
        exit_code, _, err = call(*words, "--runs", runs)
        assert exit_code == code, err
        return err

    assert "Did you mean 'resnet8x4'?" in error_of(1, "resnet8x")
    assert "Did you mean 'onnx'?" in error_of(1, "resnet8x4", "--format", "onxx")
    assert "'int4' is not one of" in error_of(2, "resnet8x4", "--int8", "int4")
    assert "--format onnx" in error_of(1, "resnet8x4", "--int8", "static", "--format", "pt2")
    absent = "--images", tmp_path / "none", "--out", tmp_path
    assert "no such file" in error_of(1, "resnet8x4", *absent)
    student = runs / "students" / "resnet8x4"
    assert "holds 'teacher', not an export" in error_of(3, "resnet8x4", "--out", student)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "card.json").write_text("{")
    assert "is damaged" in error_of(3, tmp_path / "damaged")
    copy = tmp_path / "copy"
    record = {"inputs": {"config": 3, "teacher_digest": "x"}}
    net = load_teacher(student).net
    save_teacher(copy, net, classes=("a", "b", "c"), input_size=32, record=record)
    images = "--format", "pt2", "--images", runs / "shards" / "demo"
    assert "cannot be read" in error_of(3, copy, *images)
    assert [path.name for path in (copy / "export").iterdir()] == [".lock"]
    (copy / WEIGHTS).write_bytes((copy / WEIGHTS).read_bytes()[:-1])
    assert "its card says" in error_of(3, copy)
