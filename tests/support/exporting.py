"""A student to export, the logits that its files should give, and the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from typer.testing import CliRunner

import distill.cli
from indexes.images.decode import Geometry, Pixels, load_view
from indexes.models.net import build_net
from indexes.models.teacher import Teacher, load_teacher, save_teacher
from tests.support import distillation


def save_wide(directory: Path) -> Teacher:
    """Save an imported teacher with unusual geometry and statistics, and hostile class names."""
    torch.manual_seed(3)
    net = build_net("resnet8", num_classes=3, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    classes = ("a | b", "*bee*", "cat\n# d")
    save_teacher(directory, net.eval(), classes=classes, input_size=28, crop_frac=0.875,
                 interpolation="bicubic", accuracy=0.5)  # fmt: skip
    return load_teacher(directory)


def pixels_of(num: int) -> Pixels:
    """Draw images, uint8 [num, S, S, 3]."""
    geometry = Geometry(distillation.SIZE)
    return np.stack(
        [load_view(distillation.draw_image(900 + row), geometry)[0] for row in range(num)]
    )


def logits_of(student: Teacher, pixels: Pixels) -> Any:
    """Return the logits of the student in PyTorch."""
    return student(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)[2].numpy()


def session(path: Path) -> Any:
    """Open an .onnx file with onnxruntime alone."""
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def call(*words: object) -> tuple[int, str, str]:
    """Run `winnow export ...`; return exit code, stdout, and stderr as one line."""
    result = CliRunner().invoke(distill.cli.app, ["export", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, result.stdout, " ".join(result.stderr.split())
