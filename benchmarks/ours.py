"""`distill.train.train` as the benchmarks time it: the cost of one more step, and of the rest.

A training is run for a few steps and for many; both decode, set up, measure and save alike, so
that the difference is what the steps between cost, all that a step does included.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.pair import Pair
from benchmarks.timing import Sample, timed
from distill.methods import kd as method
from distill.recipe import Recipe
from distill.train import train
from indexes import teachers
from indexes.shards import open_shards

FEW = 20  # steps of the short training: as many log lines and measurements as a long one has
TRIES = 3  # of a measurement
NOTHING = "benchmarks.ours:nothing"
LOG = "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained: views 0 asks the teacher at every step, V keeps answers to V views.

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
    """One training from nothing; the students' directories. The one place that calls `train`."""
    shards = open_shards(job.shards)
    teacher = teachers.open(job.teacher, device=job.device)
    places = {name: job.scratch / "students" / str(n) for n, name in enumerate(job.students)}
    for place in places.values():
        shutil.rmtree(place, ignore_errors=True)
    train(
        shards,
        teacher,
        places,
        method,
        method.Config(),
        Recipe(
            steps=steps,
            batch_size=job.batch_size,
            views=job.views,
            seed=seed,
            compiled=job.compiled,
        ),
        device=job.device,
        targets_in=job.scratch / "targets",
        workers=job.workers,
        budget_bytes=job.budget_bytes,
        trust_builder=True,
    )
    return list(places.values())


def marginal(job: Job, steps: int, rest: list[float] | None = None) -> Sample:
    """What `steps` further steps cost; the seconds of all that is no step are added to `rest`.

    RuntimeError where other work on the machine hides it time after time.
    """
    for _ in range(TRIES):
        few = timed(lambda: _images(job, FEW), job.device)
        many = timed(lambda: _images(job, FEW + steps), job.device)
        found = Sample(
            many.images - few.images,
            many.seconds - few.seconds,
            many.cpu_seconds - few.cpu_seconds,
        )
        if found.seconds > 0 and found.cpu_seconds > 0:
            if rest is not None:
                rest.append(few.seconds - FEW * found.seconds / steps)
            return found
    raise RuntimeError(f"{steps} steps are too few to be told from noise: say more --steps")


def _images(job: Job, steps: int) -> int:
    run(job, steps)
    return steps * job.batch_size


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
    """A Linear of the mean colour: a student that costs next to nothing."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(3, num_classes)

    def forward(self, pixels: Any) -> Any:
        return self.fc(pixels.mean((2, 3)))


def nothing(num_classes: int) -> nn.Module:
    """Builds `Nothing`; as a student's name: see NOTHING."""
    return Nothing(num_classes)
