"""The options of `winnow import-teacher` and `train-teacher`; this file imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from indexes.command.options import CommandConfig, Option


@dataclass(frozen=True, kw_only=True)
class ImportTeacherConfig(CommandConfig):
    """Make a teacher directory from a checkpoint and its class names. Nothing is unpickled.

    Input settings that you do not give come from timm's, torchvision's or open_clip's own
    configuration of the net.

    Example: winnow import-teacher --builder torchvision:resnet50 --weights r50.safetensors
    --classes names.txt runs/teachers/r50
    """

    builder: str
    """The net: timm:NAME, torchvision:NAME, open_clip:NAME (zero-shot), a name that
    `winnow students` lists, or module:function with --trust-builder."""
    weights: Path
    """The checkpoint: a .safetensors file, or a .pt or .pth state dict."""
    classes: Annotated[Path | Sequence[str], Option(type=Path)]
    """Class names: a file with one per line, or with a JSON list."""
    out: Annotated[Path, Option(argument=True)]
    """The teacher's directory, as in RUNS/teachers/NAME."""
    mean: Annotated[Sequence[float] | str | None, Option(type=str)] = None
    """Mean of each color channel in 0-1, as in 0.49,0.48,0.45."""
    std: Annotated[Sequence[float] | str | None, Option(type=str)] = None
    """Standard deviation of each color channel in 0-1, as in 0.25,0.24,0.26."""
    input_size: Annotated[int | None, Option(min=8)] = None
    """Side of the square input, in pixels."""
    crop_frac: float | None = None
    """Side of the center crop as a share of the image's shorter side, in 0-1."""
    interpolation: str | None = None
    """How images are resized: bilinear, bicubic, ..."""
    builder_args: Annotated[Mapping[str, Any] | str | None, Option(flags=("--args",), type=str)] = (
        None
    )
    """Arguments of the builder as a JSON object, as in '{"img_size": 32}'."""
    prompts: Annotated[Sequence[str], Option(flags=("--prompt",))] = ()
    """Only for open_clip: a sentence such as 'a photo of a {}.'. Repeat for an ensemble."""
    accuracy: Annotated[float | None, Option(min=0, max=1)] = None
    """The accuracy that the vendor states, in 0-1."""
    trust_builder: bool = False
    """Allow a builder module:function, which imports and runs that module's code."""


@dataclass(frozen=True, kw_only=True)
class TrainTeacherConfig(CommandConfig):
    """Train a teacher on a labeled set, for experiments in which the training data is known.

    Example: winnow train-teacher /data/cifar10/train --classes names.txt --out runs/teachers/r34
    """

    labeled: Annotated[str | Path, Option(argument=True)]
    """A labeled set: one folder per class, tars with .cls files, or Parquet."""
    classes: Annotated[Path | Sequence[str], Option(type=Path)]
    """Class names: a file with one per line, or with a JSON list."""
    out: Path
    """The teacher's directory, as in RUNS/teachers/NAME."""
    builder: str = "resnet34"
    """The net: resnet34, wrn_16_2, timm:NAME, torchvision:NAME."""
    size: Annotated[int, Option(min=8)] = 32
    """Side of the square input, in pixels."""
    epochs: Annotated[float, Option(min=0.001)] = 30.0
    """Passes over the labeled set."""
    batch_size: Annotated[int, Option(min=2)] = 128
    """Images in a batch."""
    lr: float | None = None
    """Peak learning rate. Default: 0.1 per 128 images in a batch."""
    seed: int = 0
    """Seed of the initial weights, the order of the images and their views."""
    device: str = "auto"
    """Where to train: auto, cpu, cuda, cuda:1."""
