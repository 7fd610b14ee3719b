"""The options of `winnow export`; this file imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from indexes.command.options import CommandConfig, Option
from indexes.models.teacher import Teacher


@dataclass(frozen=True, kw_only=True)
class ExportConfig(CommandConfig):
    """Write a student as ONNX and torch.export programs with a model card, and check each file.

    A program takes decoded RGB pixels in uint8, resized and cropped. Normalization, class names and
    geometry are inside the file. A file is kept only if its logits match those of the student in
    PyTorch.

    Example: winnow export in21k-winnow-resnet8x4 --int8 static
    """

    student: Annotated[str | Path | Teacher, Option(argument=True)]
    """A student or teacher: a directory, or a name under RUNS."""
    out: Path | None = None
    """The directory of the export. Default: STUDENT/export."""
    formats: Annotated[Sequence[str], Option(flags=("--format",))] = ("onnx", "pt2")
    """onnx (needs winnow\\[export]) or pt2. Repeat the option, or separate formats by commas."""
    int8: Literal["none", "static", "dynamic"] = "none"
    """Also write an 8-bit .onnx file. static: the ranges of activations come from images; dynamic:
    they are computed at each call. Agreement with float32 and speed are measured."""
    images: str | Path | None = None
    """Images for the check of the files and for calibration: shards, a folder or tars. Default:
    the shards that the student was trained on, if they are under RUNS."""
    runs: Path = Path("runs")
    """The directory of all artifacts."""
    trust_builder: bool = False
    """Let the student's card run code from outside winnow, timm, torchvision and open_clip."""
