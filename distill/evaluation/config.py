"""The options of `winnow evaluate`; importing this file loads nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from indexes.command.options import Option, RunConfig
from indexes.models.teacher import Teacher


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(RunConfig):
    """Accuracy on a labeled set, and cost: top-1, top-5 above 5 classes, per class, calibration;
    parameters, multiply-adds, bytes, images a second on this machine. Bad images are counted.

    Several students see the same images in one pass and are compared in a table, a chart of
    accuracy against cost with its Pareto front, and an HTML report of both.

    Example: winnow evaluate runs/students/* /data/val --teacher r34
    """

    students: Annotated[Sequence[str | Path | Teacher], Option(argument=True)]
    """Students or teachers: directories, or names under RUNS."""
    labeled: Annotated[str | Path, Option(argument=True)]
    """A labeled set: a folder per class, tars with .cls, Parquet."""
    teacher: str | Path | Teacher | None = None
    """Also measure how often the students agree with this teacher."""
    out: Path | None = None
    """For one student, the JSON file; default: evaluation.json beside it. For several, the
    directory of the report; default: RUNS/evaluations/SET-DIGEST."""
