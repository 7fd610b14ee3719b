"""The options of `winnow select` and `winnow generate`, for the command line and for Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from indexes.command.options import Option, RunConfig, Settings
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards


@dataclass(frozen=True, kw_only=True)
class SelectConfig(RunConfig):
    """Select the images of a corpus that suit distillation best, and write them as shards.

    The stages are embed, index, dedup, columns, score, select, weight and shard. Each stage writes
    an artifact under RUNS. Run the same command again to resume an interrupted run. When an option
    changes, only the stages that depend on it run again.

    Example: winnow select --corpus '/data/lake/{00000..00003}.tar' -n 200000
    """

    corpus: str
    """The corpus: a name from `winnow corpora`, your own .py file, a tar, a glob or brace pattern
    of tars, a folder of images, tars or Parquet files, or an fsspec URL."""
    teacher: Annotated[str | Path | Teacher | None, Option(type=str)] = None
    """A teacher directory, or a name under RUNS/teachers. Default: the only teacher there."""
    method: str | None = None
    """The selection method: winnow (default), odsd (ODSD-style), kd3, eikd (EIKD-style), dfnd, mix,
    random, entropy_top, all, or your own .py file."""
    n: Annotated[int, Option(flags=("--n", "-n"), min=1)] = 50_000
    """Number of images to keep."""
    settings: Annotated[Settings, Option(flags=("--set",))] = ()
    """A setting of the method as key=value. Repeat the option, or separate settings by spaces."""
    score_set: str | None = None
    """Rank by your own sum of columns, such as 'log_odds=1 outlier=-1 bn_distance=-0.5'. Implies
    --method mix."""
    keys: Path | None = None
    """Select exactly the images of this key list, a .parquet file written by --export."""
    export: Path | None = None
    """Also write the selection as a sorted key list to this .parquet file."""
    seed: Annotated[int, Option(min=0)] = 0
    """The seed for the order of the shards and for random draws."""
    out: Path | None = None
    """The directory for the shards. Default: a new one under RUNS/shards."""
    tower: str | None = None
    """Also embed with an open_clip image tower, in the same pass: MODEL:WEIGHTS_FILE."""
    workers: Annotated[int | None, Option(min=0)] = None
    """Number of decoding processes. The output does not depend on it."""
    on_error: Literal["continue", "stop"] = "continue"
    """The reaction to a damaged corpus file: continue (the loss is counted) or stop."""
    dedup: Literal["near", "exact", "off"] = "near"
    """near keeps one image of each group of re-encoded, resized, cropped, mirrored or recolored
    copies. exact drops only images with identical bytes. off keeps every copy."""
    exclude_eval: str | None = None
    """An evaluation set, given like a corpus. Its images and their near duplicates are dropped from
    the pool and listed in a report. Its labels are not read."""


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(RunConfig):
    """Train a generator on selected shards with the teacher's guidance, and write synthetic shards.

    The synthetic images carry teacher targets and are read like any other shards. Run the same
    command again to resume an interrupted run. Another -n reuses the trained generator. Generators
    are stored under RUNS/generators.

    Example: winnow generate --shards runs/shards/lake-winnow-0123456789 -n 50000
    """

    shards: Path | str | Shards
    """The selected shards to train on. A few thousand images are enough."""
    n: Annotated[int, Option(flags=("--n", "-n"), min=1)] = 50_000
    """Number of images to generate."""
    generator: str = "hidfd"
    """The generator: hidfd, or your own .py file."""
    preset: str | None = None
    """A named set of settings: faithful (as published) or small (for a CPU)."""
    settings: Annotated[Settings, Option(flags=("--set",))] = ()
    """A setting of the generator as key=value. Repeat the option, or separate settings by
    spaces."""
    keep: Literal["all", "agreeing"] = "all"
    """all keeps every image. agreeing keeps only images that the teacher assigns to the requested
    class."""
    teacher: Annotated[str | Path | Teacher | None, Option(type=str)] = None
    """A teacher directory, or a name under RUNS/teachers. Default: the teacher that the shards
    name."""
    seed: Annotated[int, Option(min=0)] = 0
    """The seed for the initial weights, the order of the images and the generated images."""
    out: Path | None = None
    """The directory for the synthetic shards. Default: a new one under RUNS/shards."""
