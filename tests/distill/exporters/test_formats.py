"""Programs give the logits of their student and contain its facts; wrong ones are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.exporters import formats
from indexes.images.decode import to_unit
from indexes.models.teacher import Teacher, load_teacher
from tests.support import distillation, training
from tests.support.exporting import logits_of, pixels_of, session

pytestmark = pytest.mark.usefixtures("one_thread")

# Without a projector: a CIFAR net, depthwise convolutions with squeeze-and-excitation, tokens, and
# features from a hook. Then students with a projector.
STUDENTS = {
    "resnet8x4": "kd",
    "timm:mobilenetv3_small_050": "kd",
    "timm:vit_tiny_patch16_224:img_size=32:patch_size=4:depth=2": "kd",
    "torchvision:shufflenet_v2_x0_5": "kd",
    "resnet8": "kd3",
    "torchvision:resnet18": "winnow",
    "timm:vit_tiny_patch16_224:patch_size=8:depth=1": "hidfd",
}


@pytest.fixture
def student(tmp_path: Path) -> Teacher:
    return distillation.make_teacher(tmp_path / "student")


@pytest.mark.slow
@pytest.mark.parametrize(("builder", "method"), STUDENTS.items())
def test_every_kind_of_student_becomes_a_program(
    world: training.World, tmp_path: Path, builder: str, method: str
) -> None:
    (trained,) = training.run(world, tmp_path, method, (builder,), steps=8)
    student = load_teacher(trained.directory)
    buffers = dict(student.net.module.named_buffers())
    means = [value for name, value in buffers.items() if name.endswith("running_mean")]
    assert all((mean != 0).any() for mean in means), (
        "the statistics must be trained: initial ones are a weak test"
    )
    program = formats.trace(student)
    for kind, file in formats.FILES.items():
        formats.write(student, program, kind, tmp_path / file)
        assert 0 <= formats.parity(student, tmp_path / file, [pixels_of(3)]) <= 1e-4
        assert str(Path.cwd()).encode() not in (tmp_path / file).read_bytes()
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    running = session(tmp_path / "model.onnx")
    for num in (1, 7):
        pixels = pixels_of(num)
        expected = logits_of(student, pixels)
        largest = max(1.0, np.abs(expected).max())
        for logits in (
            running.run(None, {"pixels": pixels})[0],
            loaded(torch.from_numpy(pixels)).detach().numpy(),
        ):
            assert logits.dtype == np.float32
            assert np.abs(logits - expected).max() <= 1e-4 * largest
    # The logits must vary well above the allowed gap; otherwise a wrong file would pass.
    assert np.ptp(expected, axis=0).max() > 5e-4 * largest, "the images must have different logits"
    assert formats.spread(student, pixels_of(7)) > 5e-4


def unscaled(self: formats.DeployedNet, pixels: Tensor) -> Tensor:
    return self.net(to_unit(pixels) * 0.999)[2]


def depends_on_batch_size(self: formats.DeployedNet, pixels: Tensor) -> Tensor:
    return self.net(to_unit(pixels))[2] + pixels.shape[0] * 0.001


def not_a_number(self: formats.DeployedNet, pixels: Tensor) -> Tensor:
    return self.net(to_unit(pixels))[2] * float("nan")


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (unscaled, "pt2"),
        (depends_on_batch_size, "pt2"),
        (depends_on_batch_size, "onnx"),
        (not_a_number, "pt2"),
    ],
)
def test_a_wrong_program_is_refused(
    student: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Any, kind: str
) -> None:
    monkeypatch.setattr(formats.DeployedNet, "forward", wrong)
    path = tmp_path / formats.FILES[kind]
    formats.write(student, formats.trace(student), kind, path)
    with pytest.raises(
        formats.ExportError, match="does not match its student: the logits differ by"
    ):
        formats.parity(student, path, [pixels_of(num) for num in (1, 2, 5)])


def test_a_file_of_another_student_is_refused(student: Teacher, tmp_path: Path) -> None:
    other = distillation.make_teacher(tmp_path / "other", seed=8)
    formats.write(other, formats.trace(other), "onnx", tmp_path / "model.onnx")
    with pytest.raises(formats.ExportError, match="and its student's card have different metadata"):
        formats.parity(student, tmp_path / "model.onnx", [pixels_of(2)])


def test_a_net_that_cannot_be_traced_gives_one_line(
    student: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def depends_on_values(self: formats.DeployedNet, pixels: Tensor) -> Tensor:
        return self.net(to_unit(pixels) * (2 if pixels.sum() > 0 else 1))[2]

    monkeypatch.setattr(formats.DeployedNet, "forward", depends_on_values)
    with pytest.raises(formats.ExportError, match="reports: ") as e:
        formats.trace(student)
    assert "cannot be exported: torch.export reports: " in str(e.value)
    assert "\n" not in str(e.value)


def test_formats_are_separated_by_spaces_or_commas() -> None:
    assert formats.read_formats(["onnx,pt2"]) == ["onnx", "pt2"]
    assert formats.read_formats(["pt2", "onnx", "pt2"]) == ["pt2", "onnx"]
    with pytest.raises(ValueError, match="Did you mean 'onnx'"):
        formats.read_formats(["onxx"])
    with pytest.raises(ValueError, match="--format is empty"):
        formats.read_formats([","])
