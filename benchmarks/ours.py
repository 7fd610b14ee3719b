"""`distill.run.train_students` as the benchmarks time it: the cost of the steps, and of the rest.

The method, plain `kd`, reads the clock when a step begins: once after the first WARM_UP steps and
once at the last step. The time between contains everything that steps do, including the log and
the measurements of agreement.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from benchmarks.pair import Pair
from benchmarks.timing import Sample, cpu_seconds, synchronize
from distill.method import Batch
from distill.methods.kd import KD, Config
from distill.recipe import Recipe
from distill.run import train_students
from distill.training.build import TrainingJob
from indexes import devices
from indexes.models.teacher import load_teacher
from indexes.shards.reader import open_shards

WARM_UP = 20  # steps before the clock is read
TRIVIAL = "benchmarks.ours:trivial"
LOG = "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training to time.

    If `views` is 0, the teacher runs at every step; otherwise the targets of that many views are
    cached. `compiled` compiles the teacher's forward.
    """

    shards: Path
    teacher: Path
    students: tuple[str, ...]
    batch_size: int
    device: str
    scratch: Path
    views: int = 0
    compiled: bool = False
    workers: int | None = None
    budget_bytes: int | None = None


def run(job: Job, steps: int, seed: int = 1) -> list[Path]:
    """Train the students of a job from random weights and return their directories."""
    shards = open_shards(job.shards)
    teacher = load_teacher(job.teacher, device=job.device)
    students = {name: job.scratch / "students" / str(n) for n, name in enumerate(job.students)}
    for directory in students.values():
        shutil.rmtree(directory, ignore_errors=True)
    recipe = Recipe(
        steps=steps, batch_size=job.batch_size, views=job.views, seed=seed, compiled=job.compiled
    )
    devices.keep_memory(job.device)
    train_students(
        TrainingJob(
            shards=shards,
            teacher=teacher,
            students=students,
            method=sys.modules[__name__],
            config=Config(),
            recipe=recipe,
            targets_root=job.scratch / "targets",
            device=job.device,
            workers=job.workers,
            budget_bytes=job.budget_bytes,
            trust_builder=True,
        )
    )
    return list(students.values())


class Timed(KD):
    """`kd` that reads `clock`, if there is one, at each step."""

    clock: Clock | None = None

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Read the clock, then return the losses of KD."""
        if Timed.clock is not None:
            Timed.clock.begin_step(progress)
        return super().losses(batch, progress)


class Clock:
    """Wall-clock and CPU seconds at the beginning of two steps: step WARM_UP and the last step."""

    def __init__(self, steps: int, device: str) -> None:
        self.steps, self.device = steps, device
        self.read: dict[int, tuple[float, float]] = {}

    def begin_step(self, progress: float) -> None:
        """Read the clock as a step begins. Every student calls this; the first call counts."""
        step = round(progress * self.steps)
        if step in (WARM_UP, self.steps - 1) and step not in self.read:
            synchronize(self.device)
            self.read[step] = time.perf_counter(), cpu_seconds()


def steps_of(job: Job, steps: int, rest: list[float] | None = None) -> Sample:
    """Measure `steps` steps; the seconds outside of all steps are appended to `rest`."""
    total, begin = WARM_UP + steps + 1, time.perf_counter()
    Timed.clock = clock = Clock(total, job.device)
    try:
        run(job, total)
    finally:
        Timed.clock = None
    total_seconds = time.perf_counter() - begin
    (wall, cpu), (last_wall, last_cpu) = clock.read[WARM_UP], clock.read[total - 1]
    sample = Sample(steps * job.batch_size, last_wall - wall, last_cpu - cpu)
    if rest is not None:
        rest.append(total_seconds - total * sample.seconds / steps)
    return sample


def job_of(pair: Pair, shards: Path, scratch: Path, **options: Any) -> Job:
    """Return the job that trains a pair; `options` are fields of Job."""
    return Job(
        **{
            "shards": shards,
            "teacher": pair.directory,
            "students": (pair.student,),
            "batch_size": pair.batch_size,
            "device": pair.device,
            "scratch": scratch,
            **options,
        }
    )


def log_of(student: Path) -> list[dict[str, Any]]:
    """Return the lines of a training log that contain the speed."""
    lines = [json.loads(text) for text in (student / LOG).read_text().splitlines()]
    return [line for line in lines if "seconds_per_step" in line]


def wait_frac(log: Sequence[Mapping[str, Any]]) -> float:
    """Return the share of the time spent waiting for data, over the last three quarters of a log.

    The figures of a log line are averages since the start, when the processes of a stream are still
    starting. The first quarter is therefore subtracted.
    """
    first = log[len(log) // 4]
    last = log[-1]
    seconds = [line["step"] * line["seconds_per_step"] for line in (first, last)]
    waits = [
        total * line["data_wait_frac"] for total, line in zip(seconds, (first, last), strict=True)
    ]
    return (waits[1] - waits[0]) / (seconds[1] - seconds[0])


class Trivial(nn.Module):
    """A Linear of the mean color: a student that costs almost no time."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(3, num_classes)

    def forward(self, pixels: Any) -> Any:
        return self.fc(pixels.mean((2, 3)))


def trivial(num_classes: int) -> nn.Module:
    """Build `Trivial`; TRIVIAL names this function as a student."""
    return Trivial(num_classes)
