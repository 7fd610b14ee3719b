"""`winnow demo`: the whole pipeline on generated images, with two controls.

The demo trains a teacher on a small original data set and deletes that data set. It then selects N
images from an unlabeled corpus, once with the default method and once with each control. From every
selection it distills students with the same number of steps and the same seeds. A table compares
their test accuracies. Nothing is tuned on the test set, and nothing is downloaded.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill import DistillConfig, TrainTeacherConfig, distill, train_teacher
from distill.evaluation.accuracy import evaluate_net
from indexes import Shards, Teacher, artifact, devices, load_teacher
from indexes.command.console import Answer
from indexes.command.describe import funnel_lines
from indexes.command.progress import clock
from pipeline import SelectConfig, select
from pipeline.corpora import demo as world
from pipeline.stage import DEFAULT_METHOD

log = logging.getLogger(__name__)
METHODS = (DEFAULT_METHOD, "random", "entropy_top")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The size of the demo's data and the length of its training."""

    num_lost: int = 6_000
    num_test: int = 2_000
    teacher: str = "resnet20"
    teacher_epochs: int = 8
    n: int = 3_000
    students: tuple[str, ...] = ("resnet8", "wrn_16_1")
    steps: int = 320
    batch_size: int = 64
    views: int = 2
    seeds: int = 3


@dataclass(frozen=True)
class Cell:
    """The test accuracies (0-1, one per seed) of one student trained on one selection."""

    method: str
    student: str
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean accuracy over the seeds, 0-1."""
        return statistics.fmean(self.accuracies)


def run(runs: Path, scale: Scale) -> Answer:
    """Run the demo in the directory `runs` and return its table.

    Artifacts that exist already are reused.
    """
    start = time.monotonic()
    device = devices.choose()
    test = runs / "test"
    teacher = make_teacher(runs, test, scale, device)
    top1 = evaluate_net(teacher, str(test), device=device).top1
    log.info("teacher: %.1f %% accuracy on the test set; the training data is deleted", 100 * top1)
    shards = {method: curate(method, teacher, runs, scale.n, device) for method in METHODS}
    cells = [
        cell
        for method in METHODS
        for cell in contest(method, shards[method], teacher, runs, scale, device)
    ]
    artifact.write_json(runs / "demo.json", {"teacher": top1, "cells": cells})
    funnel = shards[DEFAULT_METHOD].funnel
    lines = [
        *funnel_lines(funnel),
        "",
        *table(top1, cells, scale),
        "",
        f"The demo took {clock(time.monotonic() - start)}. Its artifacts are in {runs}.",
    ]
    return Answer({"teacher": top1, "funnel": funnel, "cells": cells, "runs": runs}, lines)


def make_teacher(runs: Path, test: Path, scale: Scale, device: str) -> Teacher:
    """Train the teacher on the original data set, then delete that data set."""
    directory, lost = runs / "teachers" / "demo", runs / "lost"
    if not artifact.is_done(directory):
        world.render_labeled(lost, "train", scale.num_lost, seed=0)
        world.render_labeled(test, "test", scale.num_test, seed=0)
        train_teacher(
            TrainTeacherConfig(
                labeled=lost,
                classes=world.CLASSES,
                builder=scale.teacher,
                out=directory,
                epochs=scale.teacher_epochs,
                device=device,
            )
        )
    for file in lost.glob("train-*.tar"):
        file.unlink()
    return load_teacher(directory, device=device)


def curate(method: str, teacher: Teacher, runs: Path, n: int, device: str) -> Shards:
    """Select `n` images of the demo corpus by one method."""
    return select(
        SelectConfig(corpus="demo", teacher=teacher, method=method, n=n, runs=runs, device=device)
    )


def contest(
    method: str, shards: Shards, teacher: Teacher, runs: Path, scale: Scale, device: str
) -> Iterator[Cell]:
    """Distill every student from one selection; steps and seeds are the same for each selection."""
    accuracies: dict[str, list[float]] = {student: [] for student in scale.students}
    for seed in range(scale.seeds):
        config = DistillConfig(
            shards=shards,
            teacher=teacher,
            students=scale.students,
            method="kd",
            steps=scale.steps,
            batch_size=scale.batch_size,
            views=scale.views,
            seed=seed,
            runs=runs,
            device=device,
        )
        for trained in distill(config):
            net = load_teacher(trained.directory, device=device)
            result = evaluate_net(net, str(runs / "test"), device=device)
            accuracies[trained.name].append(result.top1)
    for student in scale.students:
        yield Cell(method, student, tuple(accuracies[student]))


def table(teacher: float, cells: Sequence[Cell], scale: Scale) -> Iterator[str]:
    """Yield the table: mean and range of every cell, and the default's margin over each control."""
    accuracy = {(cell.method, cell.student): cell for cell in cells}
    default, controls = METHODS[0], METHODS[1:]
    yield (
        f"test accuracy in %, mean of {scale.seeds} seeds (lowest to highest), "
        f"{scale.steps} steps with batch size {scale.batch_size}"
    )
    yield f"{'':<22}" + "".join(f"{student:>22}" for student in scale.students)
    yield f"{'teacher':<22}" + f"{100 * teacher:>22.1f}" * len(scale.students)
    for method in METHODS:
        row = [accuracy[method, student] for student in scale.students]
        texts = [
            f"{100 * c.mean:.1f} ({100 * min(c.accuracies):.1f} to {100 * max(c.accuracies):.1f})"
            for c in row
        ]
        yield f"{method:<22}" + "".join(f"{text:>22}" for text in texts)
    for control in controls:
        margins = [
            100 * (accuracy[default, student].mean - accuracy[control, student].mean)
            for student in scale.students
        ]
        name = f"{default} - {control}"
        yield f"{name:<22}" + "".join(f"{margin:>+22.1f}" for margin in margins)
    means = {m: statistics.fmean(accuracy[m, s].mean for s in scale.students) for m in METHODS}
    best = max(means, key=lambda method: means[method])
    yield f"best mean accuracy: {best}" + ("" if best == default else " (a control)")
