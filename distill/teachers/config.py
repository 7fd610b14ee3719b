"""The options of `winnow import-teacher` and `train-teacher`; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from indexes.command.options import CommandConfig, Option


@dataclass(frozen=True, kw_only=True)
class ImportTeacherConfig(CommandConfig):
    """Make a teacher directory of a vendor's weights and class names. Nothing is unpickled.

    What is not given comes from timm's or torchvision's own configuration of the net.

    Example: winnow import-teacher --builder torchvision:resnet50 --weights r50.safetensors
    --classes names.txt runs/teachers/r50
    """

    builder: str
    """timm:NAME, torchvision:NAME, open_clip:NAME (zero-shot), a net of ours, or module:function
    with --trust-builder."""
    weights: Path
    """A .safetensors file, or a .pt/.pth state dict."""
    classes: Annotated[Path | Sequence[str], Option(type=Path)]
    """Class names: a file with one per line, or with a JSON list."""
    out: Annotated[Path, Option(argument=True)]
    """The teacher's directory, as in RUNS/teachers/NAME."""
    mean: Annotated[Sequence[float] | str | None, Option(type=str)] = None
    """Three numbers: 0.49,0.48,0.45."""
    std: Annotated[Sequence[float] | str | None, Option(type=str)] = None
    """Three numbers: 0.25,0.24,0.26."""
    input_size: Annotated[int | None, Option(min=8)] = None
    """Side in pixels."""
    crop_frac: float | None = None
    """Center crop / shorter side."""
    interpolation: str | None = None
    """bilinear, bicubic, ..."""
    builder_args: Annotated[Mapping[str, Any] | str | None, Option(flags=("--args",), type=str)] = (
        None
    )
    """The builder's arguments as a JSON object."""
    prompts: Annotated[Sequence[str], Option(flags=("--prompt",))] = ()
    """For open_clip: 'a photo of a {}.'; repeat for an ensemble."""
    accuracy: Annotated[float | None, Option(min=0, max=1)] = None
    """The accuracy that the vendor states, 0-1."""
    trust_builder: bool = False
    """Let the builder import code that is not winnow's, timm's or torchvision's."""


@dataclass(frozen=True, kw_only=True)
class TrainTeacherConfig(CommandConfig):
    """Train a teacher on a labeled set, for experiments where the lost data is not lost.

    Example: winnow train-teacher /data/cifar10/train --classes names.txt --out runs/teachers/r34
    """

    labeled: Annotated[str | Path, Option(argument=True)]
    """A labeled set: a folder per class, tars with .cls, Parquet."""
    classes: Annotated[Path | Sequence[str], Option(type=Path)]
    """Class names: a file with one per line, or with a JSON list."""
    out: Path
    """The teacher's directory, as in RUNS/teachers/NAME."""
    builder: str = "resnet34"
    """A net: resnet34, wrn_16_2, timm:NAME, torchvision:NAME."""
    size: Annotated[int, Option(min=8)] = 32
    """Side of the input in pixels."""
    epochs: Annotated[float, Option(min=0.001)] = 30.0
    """Passes over the set."""
    batch_size: Annotated[int, Option(min=2)] = 128
    """Images in a batch."""
    lr: float | None = None
    """Peak learning rate. Default: 0.1 per 128 images in a batch."""
    seed: int = 0
    """Initial weights, order and views."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1."""
