"""`distill.run.train_students` as the benchmarks time it: the cost of its steps, and of the rest.

The clock is read by the method itself, plain `kd`, as a step begins: between the first FEW steps
and the last one lies all that steps do, the log and the measurements of agreement included.
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

FEW = 20  # steps before the clock is read
NOTHING = "benchmarks.ours:nothing"
LOG = "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained: views 0 runs the teacher at every step, V caches targets of V views.

    `compiled` is the teacher's forward.
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
    """One training from nothing; the students' directories. The one place that trains."""
    shards = open_shards(job.shards)
    teacher = load_teacher(job.teacher, device=job.device)
    places = {name: job.scratch / "students" / str(n) for n, name in enumerate(job.students)}
    for place in places.values():
        shutil.rmtree(place, ignore_errors=True)
    recipe = Recipe(
        steps=steps, batch_size=job.batch_size, views=job.views, seed=seed, compiled=job.compiled
    )
    devices.keep_memory(job.device)
    train_students(
        TrainingJob(
            shards=shards,
            teacher=teacher,
            students=places,
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
    return list(places.values())


class Timed(KD):
    """`kd` that reads the clock where it is asked to."""

    clock: Clock | None = None

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """See KD."""
        if Timed.clock is not None:
            Timed.clock.see(progress)
        return super().losses(batch, progress)


class Clock:
    """Seconds of the wall and of the CPU as two steps begin: after FEW, and the last one."""

    def __init__(self, steps: int, device: str) -> None:
        self.steps, self.device = steps, device
        self.read: dict[int, tuple[float, float]] = {}

    def see(self, progress: float) -> None:
        """Called as each student's part of a step begins: the first one counts."""
        step = round(progress * self.steps)
        if step in (FEW, self.steps - 1) and step not in self.read:
            synchronize(self.device)
            self.read[step] = time.perf_counter(), cpu_seconds()


def steps_of(job: Job, steps: int, rest: list[float] | None = None) -> Sample:
    """What `steps` steps cost; the seconds of all that is no step are added to `rest`."""
    total, begin = FEW + steps + 1, time.perf_counter()
    Timed.clock = clock = Clock(total, job.device)
    try:
        run(job, total)
    finally:
        Timed.clock = None
    whole = time.perf_counter() - begin
    (wall, cpu), (last_wall, last_cpu) = clock.read[FEW], clock.read[total - 1]
    found = Sample(steps * job.batch_size, last_wall - wall, last_cpu - cpu)
    if rest is not None:
        rest.append(whole - total * found.seconds / steps)
    return found


def job_of(pair: Pair, shards: Path, scratch: Path, **more: Any) -> Job:
    """The job of a pair."""
    return Job(
        **{
            "shards": shards,
            "teacher": pair.directory,
            "students": (pair.student,),
            "batch_size": pair.batch_size,
            "device": pair.device,
            "scratch": scratch,
            **more,
        }
    )


def log_of(student: Path) -> list[dict[str, Any]]:
    """The lines of a training's log that say its speed."""
    lines = [json.loads(text) for text in (student / LOG).read_text().splitlines()]
    return [line for line in lines if "seconds_per_step" in line]


def wait_frac(log: Sequence[Mapping[str, Any]]) -> float:
    """Share of a step spent waiting for data, over the later three quarters of a training.

    Log lines count from the start, where a stream's processes have yet to come up.
    """
    first = log[len(log) // 4]
    last = log[-1]
    seconds = [line["step"] * line["seconds_per_step"] for line in (first, last)]
    waits = [
        total * line["data_wait_frac"] for total, line in zip(seconds, (first, last), strict=True)
    ]
    return (waits[1] - waits[0]) / (seconds[1] - seconds[0])


class Nothing(nn.Module):
    """A Linear of the mean color: a student that costs next to nothing."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(3, num_classes)

    def forward(self, pixels: Any) -> Any:
        return self.fc(pixels.mean((2, 3)))


def nothing(num_classes: int) -> nn.Module:
    """Builds `Nothing`; as a student's name: see NOTHING."""
    return Nothing(num_classes)
