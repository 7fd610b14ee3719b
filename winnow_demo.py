"""`winnow demo`: the main job end to end on a world drawn by code, with its controls.

A teacher learns a lost original, which is then deleted; the ocean is curated by the default
method and by two controls with equal N; students learn from each with equal steps, several seeds;
one table says who won. Nothing is chosen by the test set, and nothing is downloaded.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill import DistillConfig, distill
from distill.evaluation.accuracy import evaluate_net
from distill.teachers.config import TrainTeacherConfig
from distill.teachers.train_teacher import train_teacher
from indexes import artifact, devices
from indexes.describe import funnel_lines
from indexes.models.teacher import Teacher, load_teacher
from indexes.progress import clock
from indexes.shards.reader import open_shards
from pipeline.config import SelectConfig
from pipeline.corpora import demo as world
from pipeline.stage import DEFAULT_METHOD
from pipeline.stages import select

METHODS = (DEFAULT_METHOD, "random", "entropy_top")
STUDENTS = ("resnet8", "wrn_16_1")
LOST_IMAGES, TEST_IMAGES = 6_000, 2_000
TEACHER, TEACHER_EPOCHS = "resnet20", 8
KEPT_IMAGES = 3_000
STEPS, BATCH = 320, 64
VIEWS = 2


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


def run(runs: Path, seeds: int) -> None:
    """Runs the demo in `runs` and prints its table; what is there already is not made again."""
    start = time.monotonic()
    device = devices.choose()
    test = runs / "test"
    teacher = make_teacher(runs, test, device)
    top1 = evaluate_net(teacher, str(test), device=device).top1
    print(f"teacher: {100 * top1:.1f} % on the lost original's test set; its data is deleted now")
    shards = {method: curate(method, teacher, runs, device) for method in METHODS}
    cells = list(contest(shards, teacher, runs, test, seeds, device))
    print()
    for line in funnel_lines(open_shards(shards[METHODS[0]]).card["funnel"]):
        print(line)
    print()
    for line in table(top1, cells, seeds):
        print(line)
    artifact.write_json(runs / "demo.json", {"teacher": top1, "cells": cells})
    print(f"\nin {clock(time.monotonic() - start)}; the artifacts are in {runs}")


def make_teacher(runs: Path, test: Path, device: str) -> Teacher:
    """A teacher of the lost original, whose images are deleted once it is trained."""
    place, lost = runs / "teachers" / "demo", runs / "lost"
    if not artifact.is_done(place):
        world.render_labeled(lost, "train", LOST_IMAGES, seed=0)
        world.render_labeled(test, "test", TEST_IMAGES, seed=0)
        train_teacher(
            TrainTeacherConfig(
                labeled=lost,
                classes=world.CLASSES,
                builder=TEACHER,
                out=place,
                epochs=TEACHER_EPOCHS,
                device=device,
            )
        )
    for file in lost.glob("train-*.tar"):
        file.unlink()
    return load_teacher(place, device=device)


def curate(method: str, teacher: Teacher, runs: Path, device: str) -> Path:
    """The ocean, curated by one method."""
    config = SelectConfig(
        corpus="demo", teacher=teacher, method=method, n=KEPT_IMAGES, runs=runs, device=device
    )
    return select(config).directory


def contest(
    shards: dict[str, Path],
    teacher: Teacher,
    runs: Path,
    test: Path,
    seeds: int,
    device: str,
) -> Iterator[Cell]:
    """Every selection trains the same students for the same steps with the same seeds."""
    for method, directory in shards.items():
        found: dict[str, list[float]] = {student: [] for student in STUDENTS}
        for seed in range(seeds):
            config = DistillConfig(
                shards=directory,
                teacher=teacher,
                students=STUDENTS,
                method="kd",
                steps=STEPS,
                batch_size=BATCH,
                views=VIEWS,
                seed=seed,
                runs=runs,
                device=device,
            )
            for trained in distill(config):
                net = load_teacher(trained.directory, device=device)
                found[trained.name].append(evaluate_net(net, str(test), device=device).top1)
        for student in STUDENTS:
            yield Cell(method, student, tuple(found[student]))


def table(teacher: float, cells: Sequence[Cell], seeds: int) -> Iterator[str]:
    """Mean and spread of every cell, and the margin of the default method over each control."""
    accuracy = {(cell.method, cell.student): cell for cell in cells}
    default, controls = METHODS[0], METHODS[1:]
    yield f"test accuracy in %, mean of {seeds} seeds (lowest to highest); {STEPS} steps of {BATCH}"
    yield f"{'':<22}" + "".join(f"{student:>22}" for student in STUDENTS)
    yield f"{'teacher':<22}" + f"{100 * teacher:>22.1f}" * len(STUDENTS)
    for method in METHODS:
        row = [accuracy[method, student] for student in STUDENTS]
        texts = [
            f"{100 * c.mean:.1f} ({100 * min(c.accuracies):.1f} to {100 * max(c.accuracies):.1f})"
            for c in row
        ]
        yield f"{method:<22}" + "".join(f"{text:>22}" for text in texts)
    for control in controls:
        margins = [
            100 * (accuracy[default, student].mean - accuracy[control, student].mean)
            for student in STUDENTS
        ]
        name = f"{default} - {control}"
        yield f"{name:<22}" + "".join(f"{margin:>+22.1f}" for margin in margins)
    means = {m: statistics.fmean(accuracy[m, s].mean for s in STUDENTS) for m in METHODS}
    best = max(means, key=lambda method: means[method])
    yield f"here {best} wins" + ("" if best == default else ", a control")
