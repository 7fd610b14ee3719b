"""The whole job from Python: curate a corpus with a teacher, distill students, compare them.

Command: python examples/whole_job.py CORPUS TEACHER LABELED_SET
Without arguments it uses images drawn by code and trains the teacher first.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from distill import (
    DistillConfig,
    EvaluateConfig,
    TrainTeacherConfig,
    distill,
    evaluate,
    train_teacher,
)
from indexes import load_teacher
from pipeline import SelectConfig, select
from pipeline.corpora import demo


def whole_job(
    corpus: str,
    teacher: str | Path,
    labeled: str | Path,
    *,
    runs: Path = Path("runs"),
    n: int = 3_000,
    epochs: float = 10.0,
    students: Sequence[str] = ("resnet8", "wrn_16_1"),
) -> pd.DataFrame:
    """Return a row per student: accuracy on `labeled`, agreement with the teacher, and cost."""
    opened = load_teacher(teacher)
    shards = select(SelectConfig(corpus=corpus, teacher=opened, n=n, runs=runs))
    weight_of_class = shards.to_pandas().groupby("class").weight.sum()
    print(shards.funnel, shards.certificate, weight_of_class.to_dict(), sep="\n")
    config = DistillConfig(
        shards=shards, teacher=opened, students=students, method="kd", epochs=epochs, runs=runs
    )
    directories = [run.directory for run in distill(config)]
    comparison = evaluate(
        EvaluateConfig(students=directories, labeled=labeled, teacher=opened, runs=runs)
    )
    return comparison.to_pandas()


def demo_world(runs: Path = Path("runs/example")) -> tuple[Path, Path]:
    """Train a teacher on the lost data of the demo and draw a test set; return both paths."""
    demo.render_labeled(runs / "lost", "train", 6_000, seed=0)
    demo.render_labeled(runs / "test", "test", 2_000, seed=0)
    teacher = runs / "teachers" / "resnet20"
    train_teacher(
        TrainTeacherConfig(
            labeled=runs / "lost", classes=demo.CLASSES, builder="resnet20", epochs=8, out=teacher
        )
    )
    return teacher, runs / "test"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    corpus, teacher, labeled = sys.argv[1:] or ("demo", *demo_world())
    print(whole_job(corpus, teacher, labeled))
