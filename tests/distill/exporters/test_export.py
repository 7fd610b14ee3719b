"""Exports answer as their student does, say what they are, and a spoilt one is never kept."""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

import distill.cli
from distill import provenance
from distill.exporters import formats, quantize, sample_images
from distill.recipe import Recipe
from distill.run import train_students
from distill.training.build import TrainingJob
from indexes import artifact
from indexes.images.decode import Geometry, Pixels, load_view, to_unit
from indexes.models.net import build_net
from indexes.models.teacher import WEIGHTS, Teacher, load_teacher, save_teacher
from indexes.plugins import find
from indexes.shards.reader import open_shards
from indexes.shards.tar_writer import HashedTar
from tests.support import distillation

onnx = pytest.importorskip("onnx", reason="needs the extra: pip install 'winnow[export]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra winnow[export]")
pytest.importorskip("onnxscript", reason="needs the extra winnow[export]")
pytestmark = pytest.mark.usefixtures("one_thread")

# A CIFAR net, depthwise and squeezing, tokens, tapped by hooks; then with a projector behind.
STUDENTS = {
    "resnet8x4": "kd",
    "timm:mobilenetv3_small_050": "kd",
    "timm:vit_tiny_patch16_224:img_size=32:patch_size=4:depth=2": "kd",
    "torchvision:shufflenet_v2_x0_5": "kd",
    "resnet8": "kd3",
    "torchvision:resnet18": "winnow",
    "timm:vit_tiny_patch16_224:patch_size=8:depth=1": "hidfd",
}


def call(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(distill.cli.app, ["export", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUNS with shards and, after two steps each, every student of STUDENTS."""
    place = tmp_path_factory.mktemp("export") / "runs"
    teacher = distillation.make_teacher(place / "teachers" / "master")
    shards = distillation.make_shards(place / "shards" / "demo", teacher)
    for method in sorted(set(STUDENTS.values())):
        builders = [name for name, by in STUDENTS.items() if by == method]
        module = find("distill.methods", method)
        train_students(
            TrainingJob(
                shards=shards,
                teacher=teacher,
                students={name: place / "students" / folder(name) for name in builders},
                method=module,
                config=module.Config(),
                recipe=Recipe(steps=8, batch_size=16),
                targets_root=place / "targets",
            )
        )
    return place


def folder(builder: str) -> str:
    return re.sub(r"\W+", "-", builder)


def pixels_of(num: int) -> Pixels:
    geometry = Geometry(distillation.SIZE)
    return np.stack(
        [load_view(distillation.draw_image(900 + row), geometry)[0] for row in range(num)]
    )


def answer(student: Teacher, pixels: Pixels) -> Any:
    return student(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)[2].numpy()


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("builder", STUDENTS)
def test_every_kind_of_student_is_exported(runs: Path, tmp_path: Path, builder: str) -> None:
    code, out, err = call(folder(builder), "--runs", runs, "--out", tmp_path)
    assert (code, err) == (0, "")
    assert [line.split(": ")[0] for line in out.splitlines()] == [
        str(tmp_path / name) for name in ("model.onnx", "model.pt2", "MODEL_CARD.md")
    ]
    student = load_teacher(runs / "students" / folder(builder))
    state = student.net.state_dict()
    means = [value for name, value in state.items() if name.endswith("running_mean")]
    assert all(mean.any() for mean in means), "untrained statistics test little"
    program = torch.export.load(tmp_path / "model.pt2").module()
    running = session(tmp_path / "model.onnx")
    for num in (1, 7):
        pixels = pixels_of(num)
        expected = answer(student, pixels)
        largest = max(1.0, np.abs(expected).max())
        for found in (
            running.run(None, {"pixels": pixels})[0],
            program(torch.from_numpy(pixels)).detach().numpy(),
        ):
            assert found.dtype == np.float32
            assert np.abs(found - expected).max() <= 1e-4 * largest
    # Well above the gap allowed: else a wrong file would pass for a right one.
    assert np.ptp(expected, axis=0).max() > 5e-4 * largest, "one answer to all"
    card = artifact.read_card(tmp_path, "export")
    assert set(card["parity"]) == {"model.onnx", "model.pt2"}
    assert all(0 <= value <= 1e-4 for value in card["parity"].values())
    assert card["student_digest"] == student.card.digest
    assert card["versions"].keys() == {"torch", "onnx", "onnxruntime"}
    for one in card["files"]:
        assert artifact.sha256(tmp_path / one["name"]) == one["sha256"]
        assert (tmp_path / one["name"]).stat().st_size == one["bytes"]
        assert str(Path.cwd()).encode() not in (tmp_path / one["name"]).read_bytes()
    assert {one["name"] for one in card["files"]} == {*card["parity"], "MODEL_CARD.md"}


def save_wide(directory: Path) -> Teacher:
    """An imported teacher with a geometry and numbers of its own."""
    torch.manual_seed(3)
    net = build_net("resnet8", num_classes=3, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    classes = ("a | b", "*bee*", "cat\n# d")
    save_teacher(directory, net.eval(), classes=classes, input_size=28, crop_frac=0.875,
                  interpolation="bicubic", accuracy=0.5)  # fmt: skip
    return load_teacher(directory)


def test_the_file_alone_suffices_and_the_samples_run(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = save_wide(tmp_path / "wide")
    (tmp_path / "set").mkdir()
    for number in range(5):
        (tmp_path / "set" / f"{number}.png").write_bytes(distillation.draw_image(number, 50))
    (tmp_path / "set" / "bad.png").write_bytes(b"no image")
    code, _, err = call(tmp_path / "wide", "--runs", runs, "--images", tmp_path / "set")
    assert (code, err) == (0, f"{tmp_path / 'set'}: dropped 1 corrupt")
    place = tmp_path / "wide" / "export"
    stored = session(place / "model.onnx").get_modelmeta().custom_metadata_map
    extra = dict.fromkeys(stored, "")
    torch.export.load(place / "model.pt2", extra_files=extra)
    assert stored == extra
    facts = {key: json.loads(value) for key, value in stored.items()}
    assert facts["classes"] == list(teacher.card.classes)
    assert facts["geometry"] == {
        "size": 28, "shorter_side": 32, "crop_frac": 0.875, "interpolation": "bicubic"
    }  # fmt: skip
    assert (facts["mean"], facts["std"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert facts["student_digest"] == teacher.card.digest

    card = (place / "MODEL_CARD.md").read_text()
    assert "50.00 %" in card
    assert "a \\| b, \\*bee\\*, cat \\# d" in card
    assert "How it was trained" not in card
    assert "no human label" not in card
    prepare, *samples = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(samples) == 2
    noise = np.random.default_rng(1).integers(40, 216, (40, 61, 4), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: list[dict[str, Any]] = [{}, {"exif": exif}, {"mode": "RGBA"}]
    monkeypatch.chdir(place)
    for sample, kind in itertools.product(samples, kinds):
        pillow = Image.fromarray(noise).convert(kind.pop("mode", "RGB"))
        pillow.save(place / "photo.jpg", "PNG", **kind)
        pixels, _, _ = load_view((place / "photo.jpg").read_bytes(), teacher.geometry)
        names: dict[str, Any] = {}
        exec(prepare + sample, names)
        assert np.abs(names["pixels"][0].astype(int) - pixels).max() <= 2
        expected = answer(teacher, names["pixels"])
        found = names["logits"]
        found = found.detach().numpy() if isinstance(found, Tensor) else found
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert teacher.card.classes[expected.argmax()] in capsys.readouterr().out


def unscaled(self: formats.DeployedNet, pixels: Tensor) -> Tensor:
    return self.answer(to_unit(pixels) * 0.999)[2]


def for_two(self: formats.DeployedNet, pixels: Tensor) -> Tensor:
    return self.answer(to_unit(pixels))[2] + pixels.shape[0] * 0.001


def nothing(self: formats.DeployedNet, pixels: Tensor) -> Tensor:
    return self.answer(to_unit(pixels))[2] * float("nan")


@pytest.mark.parametrize("wrong", [unscaled, for_two, nothing])
@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_a_spoilt_export_is_refused(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Any, kind: str
) -> None:
    monkeypatch.setattr(formats.DeployedNet, "forward", wrong)
    code, out, err = call("resnet8", "--runs", runs, "--out", tmp_path, "--format", kind)
    assert code == 2
    assert "does not answer as its student does: logits differ by" in err
    assert (out, [one.name for one in tmp_path.iterdir()]) == ("", [".lock"])


def test_a_student_that_answers_the_same_to_all_is_told_of(runs: Path, tmp_path: Path) -> None:
    net = load_teacher(runs / "students" / "resnet8").net
    net.head[0].mul_(1e-6)
    save_teacher(tmp_path / "dull", net, classes=distillation.CLASSES, input_size=distillation.SIZE)
    words = tmp_path / "dull", "--format", "pt2", "--images", runs / "shards" / "demo"
    code, _, err = call(*words, "--runs", runs)
    assert code == 0
    assert "answers nearly the same to every image" in err


def test_a_file_of_another_student_is_refused(runs: Path, tmp_path: Path) -> None:
    student = load_teacher(runs / "students" / "resnet8")
    other = distillation.make_teacher(tmp_path / "other")
    formats.write(other, formats.trace(other), "onnx", tmp_path / "model.onnx")
    with pytest.raises(formats.ExportError, match="does not say what its student's card says"):
        formats.parity(student, tmp_path / "model.onnx", [pixels_of(2)])


def test_what_cannot_be_traced_is_one_line(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asks(self: formats.DeployedNet, pixels: Tensor) -> Tensor:
        return self.answer(to_unit(pixels) * (2 if pixels.sum() > 0 else 1))[2]

    monkeypatch.setattr(formats.DeployedNet, "forward", asks)
    code, _, err = call("resnet8", "--runs", runs, "--out", tmp_path)
    assert code == 2
    assert "cannot be exported: torch.export says: " in err


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_8_bits_are_measured(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(quantize, "SECONDS", 0.01)
    words = "resnet8x4", "--runs", runs, "--out", tmp_path, "--int8", kind, "--format", "onnx"
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 3
    gain = quantize.Gain(**artifact.read_card(tmp_path, "export")["int8"])
    assert (gain.num_calibration, gain.num_measured) == ((30, 30) if kind == "static" else (0, 60))
    assert gain.int8_bytes < 0.4 * gain.float_bytes
    assert min(gain.float_images_per_second, gain.int8_images_per_second) > 0
    before, after = session(tmp_path / "model.onnx"), session(tmp_path / "model.int8.onnx")
    assert (
        before.get_modelmeta().custom_metadata_map == after.get_modelmeta().custom_metadata_map
    ), "the smaller file suffices too"
    types = {node.op_type for node in onnx.load(tmp_path / "model.int8.onnx").graph.node}
    assert ("QuantizeLinear" if kind == "static" else "ConvInteger") in types
    chosen = sample_images.gather_samples(str(runs / "shards" / "demo"), 768, Geometry(32))
    (pixels,) = chosen.batches(gain.num_calibration, 60, 60)
    tops = [one.run(None, {"pixels": pixels})[0].argmax(1) for one in (before, after)]
    assert gain.agreement == pytest.approx((tops[0] == tops[1]).mean(), abs=0.04)
    assert after.run(None, {"pixels": pixels[:7]})[0].shape == (7, 3)
    assert f"8 bits ({kind})" in (tmp_path / "MODEL_CARD.md").read_text()


def test_a_second_run_does_only_what_is_missing(runs: Path, tmp_path: Path) -> None:
    words = "resnet8", "--runs", runs, "--out", tmp_path / "out", "--format", "pt2"
    assert call(*words)[0] == 0
    file = tmp_path / "out" / "model.pt2"
    first = file.stat().st_mtime_ns
    assert call(*words)[1] == f"{tmp_path / 'out'}: was exported before\n"
    assert file.stat().st_mtime_ns == first
    file.write_bytes(file.read_bytes()[:-1])
    assert "logits within" in call(*words)[1]
    card = tmp_path / "out" / "MODEL_CARD.md"
    assert "not measured" in card.read_text()
    place = runs / "students" / "resnet8"
    evaluation = {
        "student_digest": load_teacher(place).card.digest, "labeled": "/data/far/val_set/",
        "num_images": 1200, "top1": 0.9, "top5": None, "agreement": 0.8,
        "per_class": {"ant": 0.5, "bee": None, "cat": 1.0},
    }  # fmt: skip
    artifact.write_json(place / "evaluation.json", evaluation)
    try:
        assert "logits within" in call(*words)[1]
    finally:
        (place / "evaluation.json").unlink()
    assert "Top-1 on far/val\\_set: 90.00 % of 1,200 images" in card.read_text()
    assert "not measured" not in card.read_text()
    code, _, _ = call(*words[:-1], "onnx")
    assert code == 0
    assert {one.name for one in (tmp_path / "out").iterdir()} == {
        ".lock", "MODEL_CARD.md", "card.json", "model.onnx"
    }  # fmt: skip


def test_an_export_that_fails_leaves_the_one_before_it(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"
    words = "resnet8", "--runs", runs, "--out", place, "--format", "onnx"
    assert call(*words)[0] == 0
    before = {one.name: one.read_bytes() for one in place.iterdir()}
    code, _, err = call(*words, "--images", tmp_path / "typo")
    assert (code, "typo" in err) == (2, True)
    with monkeypatch.context() as patch:
        patch.setattr(formats, "MAX_PARITY_GAP", -1.0)
        assert call(*words[:-1], "onnx,pt2")[0] == 2
    assert {one.name: one.read_bytes() for one in place.iterdir()} == before
    (place / ".new-killed").mkdir()
    assert call(*words[:-1], "pt2")[0] == 0
    names = {one.name for one in place.iterdir()}
    assert names == {".lock", "MODEL_CARD.md", "card.json", "model.pt2"}


def test_a_net_that_was_taught_is_no_student(runs: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = build_net("resnet8", num_classes=3).eval()
    record = {"inputs": {"labeled": [["set", "print"]], "recipe": {"epochs": 1}}}
    save_teacher(
        tmp_path / "taught", net, classes=distillation.CLASSES, input_size=32, record=record
    )
    assert call(tmp_path / "taught", "--runs", runs, "--format", "pt2")[0] == 0
    card = (tmp_path / "taught" / "export" / "MODEL_CARD.md").read_text()
    assert "By cross-entropy on the labels of images" in card
    assert "distilled" not in card
    assert "human label" not in card


def test_lineage_is_kept_by_the_student_itself(runs: Path, tmp_path: Path) -> None:
    shards = open_shards(runs / "shards" / "demo")
    record = artifact.read_card(runs / "students" / "resnet8", "teacher")["record"]
    (found,) = provenance.find_origins(record, runs)
    assert found.directory == runs / "shards" / "demo"
    (kept,) = provenance.find_origins(record, tmp_path)
    assert kept.directory is None
    assert kept.summary == found.summary
    assert kept.summary["num_samples"] == 60
    assert kept.summary["name"] == "demo"
    assert provenance.find_origins({}, runs) == []
    old = {"inputs": {"shards_digest": "12", "mix_digest": kept.digest}}
    unknown, mixed = provenance.find_origins(old, runs)
    assert (unknown.summary, mixed.summary) == ({"digest": "12"}, found.summary)
    funnel = {"in": 9, "dropped": {"empty": 2}, "kept": 7}
    shards.card.update(corpus="crawl", method="random", config={"floor": 2.0}, funnel=funnel)
    (told,) = provenance.summarize_shards(shards, None)
    assert (told["corpus"], told["funnel"], told["config"]) == ("crawl", funnel, {"floor": 2.0})


def test_without_shards_it_is_tried_on_noise_and_says_so(runs: Path, tmp_path: Path) -> None:
    place = runs / "students" / "resnet8"
    words = place, "--runs", tmp_path, "--out", tmp_path / "x", "--format", "pt2"
    code, out, err = call(*words)
    assert code == 0
    assert "on 64 images of noise" in out
    assert "name some with --images" in err
    text = (tmp_path / "x" / "MODEL_CARD.md").read_text()
    assert "Shards `demo`" in text
    assert "Images: 60" in text
    for kind in ("static", "dynamic"):
        code, _, err = call(place, "--runs", tmp_path, "--out", tmp_path / "y", "--int8", kind)
        assert code == 2
        assert "name images like those it will see, --images PATH" in err
    assert not (tmp_path / "y").exists()


def test_the_extra_may_be_missing(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    words = "resnet8", "--runs", runs, "--out", tmp_path
    code, _, err = call(*words)
    assert (code, "needs onnxscript: pip install 'winnow[export]'" in err) == (2, True)
    assert call(*words, "--format", "pt2")[0] == 0


def test_slips_are_one_line(runs: Path, tmp_path: Path) -> None:
    def told(*words: object) -> str:
        code, _, err = call(*words, "--runs", runs)
        assert code == 2
        assert err.startswith("error: ")
        return err

    assert "Did you mean 'resnet8x4'?" in told("resnet8x")
    assert "Did you mean 'onnx'?" in told("resnet8", "--format", "onxx")
    assert "names none of" in told("resnet8", "--format", ",")
    assert "one of none, dynamic, static" in told("resnet8", "--int8", "int4")
    assert "--format onnx" in told("resnet8", "--int8", "static", "--format", "pt2")
    assert "no such file" in told("resnet8", "--images", tmp_path / "none", "--out", tmp_path)
    assert "holds 'teacher', not an export" in told(
        "resnet8", "--out", runs / "students" / "resnet8"
    )
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "thesis.txt").write_text("mine")
    assert "not empty (it holds thesis.txt)" in told("resnet8", "--out", tmp_path / "f")
    assert "is a file" in told("resnet8", "--out", tmp_path / "f" / "thesis.txt")
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "card.json").write_text("{")
    assert "is damaged" in told("resnet8", "--out", tmp_path / "g")
    assert "is damaged" in told(tmp_path / "g")
    place = tmp_path / "copy"
    record = {"inputs": {"config": 3, "teacher_digest": "x"}}
    net = load_teacher(runs / "students" / "resnet8").net
    save_teacher(place, net, classes=("a", "b", "c"), input_size=32, record=record)
    assert "is not of this winnow" in told(
        place, "--format", "pt2", "--images", runs / "shards" / "demo"
    )
    assert [one.name for one in (place / "export").iterdir()] == [".lock"]
    weights = place / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "its card says" in told(place)


def test_a_handful_is_from_all_over_the_set(tmp_path: Path) -> None:
    for number in range(40):
        place = tmp_path / f"class{number // 10}"
        place.mkdir(exist_ok=True)
        (place / f"{number}.png").write_bytes(distillation.draw_image(number))
    (tmp_path / "class2" / "00.png").write_bytes(b"")
    found = sample_images.gather_samples(str(tmp_path), 12, Geometry(32))
    assert len(found) == 11
    assert found.dropped == {"empty": 1}
    numbers = [number for number in range(40) if distillation.draw_image(number) in found.encoded]
    assert {number // 10 for number in numbers} == {0, 1, 2, 3}
    assert [len(one) for one in found.batches(0, 99, 4)] == [4, 4, 3]
    again = sample_images.gather_samples(str(tmp_path), 12, Geometry(32))
    assert again.encoded == found.encoded
    with (tmp_path / "sorted.tar").open("wb") as file:
        tar = HashedTar(file)
        for number in range(120):
            tar.add(f"{number:03}.png", distillation.draw_image(number))
        tar.close()
    one = sample_images.gather_samples(str(tmp_path / "sorted.tar"), 12, Geometry(32))
    thirds = {
        number // 40 for number in range(120) if distillation.draw_image(number) in one.encoded
    }
    assert (len(one), thirds) == (12, {0, 1, 2})
    (tmp_path / "bad").mkdir()
    (tmp_path / "class2" / "00.png").rename(tmp_path / "bad" / "00.png")
    with pytest.raises(ValueError, match="not one image could be decoded"):
        sample_images.gather_samples(str(tmp_path / "bad"), 1, Geometry(32))
