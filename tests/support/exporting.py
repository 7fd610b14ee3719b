"""Students to export, and what their files should give."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from typer.testing import CliRunner

import distill.cli
from distill.recipe import Recipe
from distill.run import train_students
from distill.training.build import TrainingJob
from indexes.images.decode import Geometry, Pixels, load_view
from indexes.models.net import build_net
from indexes.models.teacher import Teacher, load_teacher, save_teacher
from indexes.plugins import find
from indexes.shards.reader import Shards
from tests.support import distillation

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


def make_students(runs: Path, shards: Shards, teacher: Teacher) -> None:
    """A few steps of each student with its method."""
    for method in sorted(set(STUDENTS.values())):
        builders = [builder for builder, name in STUDENTS.items() if name == method]
        module = find("distill.methods", method)
        train_students(
            TrainingJob(
                shards=shards,
                teacher=teacher,
                students={builder: runs / "students" / folder(builder) for builder in builders},
                method=module,
                config=module.Config(),
                recipe=Recipe(steps=8, batch_size=16),
                targets_root=runs / "targets",
            )
        )


def folder(builder: str) -> str:
    """The name of a student's directory."""
    return re.sub(r"\W+", "-", builder)


def save_wide(directory: Path) -> Teacher:
    """An imported teacher with a geometry, numbers and ill-named classes of its own."""
    torch.manual_seed(3)
    net = build_net("resnet8", num_classes=3, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    classes = ("a | b", "*bee*", "cat\n# d")
    save_teacher(directory, net.eval(), classes=classes, input_size=28, crop_frac=0.875,
                 interpolation="bicubic", accuracy=0.5)  # fmt: skip
    return load_teacher(directory)


def pixels_of(num: int) -> Pixels:
    """Drawn images, uint8 [num, S, S, 3]."""
    geometry = Geometry(distillation.SIZE)
    return np.stack([load_view(distillation.paint(900 + row), geometry)[0] for row in range(num)])


def logits_of(student: Teacher, pixels: Pixels) -> Any:
    """The student's logits in PyTorch."""
    return student(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)[2].numpy()


def session(path: Path) -> Any:
    """An .onnx file, run by onnxruntime alone."""
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def call(*words: object) -> tuple[int, str, str]:
    """`winnow export ...`: exit code, stdout, stderr in one line."""
    result = CliRunner().invoke(distill.cli.app, ["export", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, result.stdout, " ".join(result.stderr.split())
