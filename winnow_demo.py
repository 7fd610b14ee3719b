"""`winnow demo`: the main job end to end on a world drawn by code, with its controls.

A teacher learns a lost original, which is then deleted; the ocean is curated by the default
method and by two controls with equal N; students learn from each with equal steps, several seeds;
one table says who won. Nothing is chosen by the test set, and nothing is downloaded.
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
    """How large the demo's world is and how long its nets train."""

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
    """Test accuracies, one per seed, of one student trained from one selection."""

    method: str
    student: str
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over seeds, 0-1."""
        return statistics.fmean(self.accuracies)


def run(runs: Path, scale: Scale) -> Answer:
    """Runs the demo in `runs`; what is there already is not made again. The answer is its table."""
    start = time.monotonic()
    device = devices.choose()
    test = runs / "test"
    teacher = make_teacher(runs, test, scale, device)
    top1 = evaluate_net(teacher, str(test), device=device).top1
    log.info(
        "teacher: %.1f %% on the lost original's test set; its data is deleted now", 100 * top1
    )
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
        f"in {clock(time.monotonic() - start)}; the artifacts are in {runs}",
    ]
    return Answer({"teacher": top1, "funnel": funnel, "cells": cells, "runs": runs}, lines)


def make_teacher(runs: Path, test: Path, scale: Scale, device: str) -> Teacher:
    """A teacher of the lost original, whose images are deleted once it is trained."""
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
    """The ocean, curated by one method."""
    return select(
        SelectConfig(corpus="demo", teacher=teacher, method=method, n=n, runs=runs, device=device)
    )


def contest(
    method: str, shards: Shards, teacher: Teacher, runs: Path, scale: Scale, device: str
) -> Iterator[Cell]:
    """A selection trains the students for the same steps with the same seeds as any other."""
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
    """Mean and spread of every cell, and the margin of the default method over each control."""
    accuracy = {(cell.method, cell.student): cell for cell in cells}
    default, controls = METHODS[0], METHODS[1:]
    yield (
        f"test accuracy in %, mean of {scale.seeds} seeds (lowest to highest); "
        f"{scale.steps} steps of {scale.batch_size}"
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
    yield f"here {best} wins" + ("" if best == default else ", a control")
