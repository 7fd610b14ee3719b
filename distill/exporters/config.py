"""The options of `winnow export`; importing this file loads nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from indexes.command.options import CommandConfig, Option
from indexes.models.teacher import Teacher


@dataclass(frozen=True, kw_only=True)
class ExportConfig(CommandConfig):
    """Write a student as ONNX and torch.export programs with a model card, each file checked.

    A file takes uint8 RGB pixels as a decoder gives them, resized; normalization, class names and
    geometry are inside. It is kept only if its logits are those of the student in PyTorch.

    Example: winnow export in21k-winnow-resnet8x4 --int8 static
    """

    student: Annotated[str | Path | Teacher, Option(argument=True)]
    """A student or teacher: a directory, or a name under RUNS."""
    out: Path | None = None
    """The export's directory. Default: STUDENT/export."""
    formats: Annotated[Sequence[str], Option(flags=("--format",))] = ("onnx", "pt2")
    """onnx (needs winnow\\[export]) or pt2; repeat, or separate by commas."""
    int8: Literal["none", "static", "dynamic"] = "none"
    """static: 8 bits with ranges from images; dynamic: ranges found at each call. The loss of
    agreement and the gain in speed are measured."""
    images: str | Path | None = None
    """Images to calibrate on and to check the files with: shards, or a folder, tar, ... Default:
    the shards that the student was trained from, where they are under RUNS."""
    runs: Path = Path("runs")
    """The directory of all artifacts."""
    trust_builder: bool = False
    """Let the student's card import code that is not winnow's, timm's or torchvision's."""
