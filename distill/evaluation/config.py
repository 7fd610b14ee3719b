"""The options of `winnow evaluate`; this file imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from indexes.command.options import Option, RunConfig
from indexes.models.teacher import Teacher


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(RunConfig):
    """Measure the accuracy of students on a labeled set, and what the students cost.

    Accuracy is top-1, top-5 (above five classes) and per class, with the calibration error. Cost is
    parameters, multiply-adds, bytes, and images per second on this machine. Images that cannot be
    decoded are counted and left out.

    Several students see the same images in one pass. A report compares them in a table and in a
    chart of accuracy against cost with the Pareto front.

    Example: winnow evaluate runs/students/* /data/val --teacher r34
    """

    students: Annotated[Sequence[str | Path | Teacher], Option(argument=True)]
    """Students or teachers: directories, or names under RUNS."""
    labeled: Annotated[str | Path, Option(argument=True)]
    """The labeled set: a folder per class, tars with .cls files, or Parquet."""
    teacher: str | Path | Teacher | None = None
    """Also evaluate this teacher, and measure how often each student predicts its class."""
    out: Path | None = None
    """For one student, the JSON file. Default: evaluation.json in its directory. For several
    students, the directory of the report. Default: RUNS/evaluations/SET-DIGEST."""
