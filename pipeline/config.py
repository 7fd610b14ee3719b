"""The options of `winnow select` and `winnow generate`: what the shell and Python pass on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from indexes.command.options import Option, RunConfig, Settings
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards


@dataclass(frozen=True, kw_only=True)
class SelectConfig(RunConfig):
    """Curate: go through the corpus once, keep what lies closest to the lost data, write shards.

    embed -> index -> dedup -> score -> select -> weigh -> shard. Every step leaves an artifact
    under RUNS; run the same command again after a kill and it goes on, change a setting and only
    what depends on it is made again.

    Example: winnow select --corpus '/data/laion/{00000..00999}.tar' -n 200000
    """

    corpus: str
    """A corpus by name (see `winnow corpora`), your own .py file, or paths: a tar, a glob or brace
    of tars, a folder of images, tars or Parquet, an fsspec URL."""
    teacher: Annotated[str | Path | Teacher | None, Option(type=str)] = None
    """A teacher directory, or a name under RUNS/teachers. Default: the only one."""
    method: str | None = None
    """winnow (default), odsd, kd3, eikd, dfnd, mix, random, entropy_top, all, or your own .py
    file."""
    n: Annotated[int, Option(flags=("--n", "-n"), min=1)] = 50_000
    """Images to keep."""
    settings: Annotated[Settings, Option(flags=("--set",))] = ()
    """A setting of the method, key=value; repeat or space-separate."""
    score_set: str | None = None
    """A combination of your own: 'log_odds=1 outlier=-1 bn_distance=-0.5'; --method mix."""
    keys: Path | None = None
    """Select the images of this list (.parquet of an --export), no others."""
    export: Path | None = None
    """Also write what was selected as a sorted list of keys."""
    seed: Annotated[int, Option(min=0)] = 0
    """Order of the shards, random draws."""
    out: Path | None = None
    """The shards' directory. Default: under RUNS/shards."""
    tower: str | None = None
    """Also embed by an open_clip tower: MODEL:WEIGHTS_FILE, in the same pass."""
    workers: Annotated[int | None, Option(min=0)] = None
    """Decoding processes. The bytes out do not depend on it."""
    on_error: Literal["continue", "stop"] = "continue"
    """A damaged corpus file: continue (counted) or stop."""
    dedup: Literal["near", "exact", "off"] = "near"
    """near: one of re-encoded, resized, cropped, mirrored, recolored copies is kept. exact: only
    equal bytes are dropped. off."""
    exclude_eval: str | None = None
    """An evaluation set, written like a corpus: its images and what is like them are taken out of
    the pool and listed. Its labels are not read."""


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(RunConfig):
    """Generate: train a generator on curated shards under the teacher's eyes, write synthetic ones.

    The synthetic images carry the teacher's targets and are read as any other shards. Run the same
    command again after a kill and it goes on; ask for another -n and the generator is not trained
    again. The generator lies under RUNS/generators.

    Example: winnow generate --shards runs/shards/lake-winnow-0123456789 -n 50000
    """

    shards: Path | str | Shards
    """The curated shards to learn from: a few thousand images are enough."""
    n: Annotated[int, Option(flags=("--n", "-n"), min=1)] = 50_000
    """Images to generate."""
    generator: str = "hidfd"
    """hidfd, or your own .py file."""
    preset: str | None = None
    """A named set of settings: faithful (as published), small (for a CPU)."""
    settings: Annotated[Settings, Option(flags=("--set",))] = ()
    """A setting of the generator, key=value; repeat or space-separate."""
    keep: Literal["all", "agreeing"] = "all"
    """all, or agreeing: only images in which the teacher sees the requested class."""
    teacher: Annotated[str | Path | Teacher | None, Option(type=str)] = None
    """A teacher directory or name. Default: the one that the shards name."""
    seed: Annotated[int, Option(min=0)] = 0
    """Initial weights, order, what is generated."""
    out: Path | None = None
    """The synthetic shards' directory. Default: under RUNS/shards."""
