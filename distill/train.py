"""The training: one pass over the shards feeds any number of students.

The defaults: SGD with Nesterov momentum .9, weight decay 5e-4, learning rate .1 per 128 images of
a batch with a short warm-up and a cosine, bf16 where it is native.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from distill import data, optim, order, targets, views
from distill.evaluate import agreement, predict
from distill.learner import Learner, finished_or_refused, forget
from distill.method import Batch, Method, method_class
from indexes import artefact, devices
from indexes.progress import clock
from indexes.shards import Shards
from indexes.teachers import Teacher

LR_PER_128 = 0.1
LOG_STEPS = 50  # at most, between two lines of the log file
PRINT_SECONDS = 10.0
CHECKPOINT_SECONDS = 60.0
NUM_AGREEMENTS = 10  # measurements of teacher agreement in a training


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how fast. A batch holds `batch_size` views, whatever the method."""

    steps: int
    batch_size: int = 128
    lr: float = LR_PER_128
    views: int = 0
    """0: a fresh view at each visit; V: V views for ever, the teacher's answers kept on disk."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 4 or self.views < 0 or not self.lr > 0:
            raise ValueError(
                f"steps must be at least 1, batch size 4, views 0 and lr above 0: not {self}"
            )


@dataclass(frozen=True)
class Outcome:
    """What became of a student: `finished`, `already` (was there before) or `diverged`."""

    student: str
    directory: Path
    state: str
    agreement: float | None


def train(
    shards: Shards,
    teacher: Teacher,
    students: Mapping[str, Path],
    method: ModuleType,
    config: Any,
    recipe: Recipe,
    *,
    device: str = "cpu",
    targets_in: Path,
    fresh: bool = False,
    workers: int | None = None,
    budget_bytes: int | None = None,
) -> list[Outcome]:
    """Trains `students` (builder -> directory) and saves each as a teacher directory.

    Resumes whatever was cut off, bit-equal on a CPU, and leaves finished students alone. `method`
    is a file of distill/methods and `config` its Config; `targets_in` is where answers are kept.
    Raises ArtefactError for a directory of other settings or shards of another teacher, NetError
    for an unknown student, KeyboardInterrupt after a checkpoint at SIGTERM or Ctrl-C.
    """
    kind = method_class(method)
    inputs = _inputs(shards, teacher, method, config, recipe)
    outcomes = {name: Outcome(name, place, "already", None) for name, place in students.items()}
    with torch.random.fork_rng(devices=_cuda(device)):
        learners = _learners(students, kind, teacher, config, recipe, inputs, device, fresh)
        if not learners:
            return list(outcomes.values())
        start = min(learner.step for learner in learners)
        feed, weights, heldout = _data(
            shards, teacher, kind, recipe, device, workers, budget_bytes, learners
        )
        size = shards.input_size
        answers = _targets(shards, teacher, kind, recipe, device, targets_in, feed)
        answers.catch_up(feed, start)
        heldout_classes = predict(teacher.net, heldout, size)
        pace = Pace(start, recipe)
        measured = {learner.builder: 0.0 for learner in learners}

        with stop_signal() as stop_asked:
            seen_steps = feed.steps(start, recipe.steps)
            for step in range(start, recipe.steps):
                pace.wait()
                seen = next(seen_steps)
                pace.go()
                progress = step / recipe.steps
                answer = answers.answer(step, seen)
                batch = Batch(
                    seen.pixels,
                    weights[torch.from_numpy(seen.index).to(device)],
                    answer.logits_BC,
                    answer.features_BD,
                )
                lr = optim.learning_rate(progress, recipe.lr)
                running = [one for one in learners if one.failed_at is None and one.step <= step]
                for learner in running:
                    learner.take(step, batch, progress=progress, lr=lr)

                done = step + 1
                if done % pace.agreement_steps == 0 or done == recipe.steps:
                    for learner in running:
                        net = learner.method.deployed()
                        share = agreement(net, heldout, heldout_classes, size)
                        measured[learner.builder] = share
                        learner.write(agreement=share)
                if done % pace.log_steps == 0 or done == recipe.steps:
                    for learner in running:
                        learner.log(lr=lr, **pace.numbers(done))
                if pace.print_due() or done == recipe.steps:
                    print(pace.line(done, running, measured), file=sys.stderr, flush=True)
                if done < recipe.steps and (pace.checkpoint_due() or stop_asked()):
                    answers.flush(done)
                    for learner in running:
                        if learner.failed_at is None:
                            learner.save()
                    if stop_asked():
                        raise KeyboardInterrupt
                if all(one.failed_at is not None for one in learners):
                    break

        answers.flush(recipe.steps)
        for learner in learners:
            name, place = learner.builder, learner.directory
            if learner.failed_at is None:
                learner.finish(teacher.card, measured[name])
                outcomes[name] = Outcome(name, place, "finished", measured[name])
            else:
                outcomes[name] = Outcome(name, place, "diverged", None)
    return list(outcomes.values())
