"""The training: one pass over the shards feeds any number of students.

The defaults: SGD with Nesterov momentum .9 and weight decay 5e-4, or Muon where the method asks for
it, learning rate .1 per 128 images of a batch with a short warm-up and a cosine, bf16 where it is
native.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill.data.loader import ViewBatch
from distill.evaluation.accuracy import agreement, predict
from distill.method import Batch
from distill.training import optim
from distill.training.build import Setup
from distill.training.cadence import Cadence
from distill.training.learner import Learner
from indexes import artifact, devices
from indexes.checkpoint import LOG, stop_signal

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudentRun:
    """What became of a student.

    `state`: finished, already (was there before), or why it was stopped: diverged, out of memory,
    refused (by its method). `agreement`: the share of held-out images that it puts in its
    teacher's class, in 0-1.
    """

    name: str
    directory: Path
    state: str
    agreement: float | None

    @property
    def is_trained(self) -> bool:
        """Whether there is a student now."""
        return self.state in ("finished", "already")

    @property
    def card(self) -> dict[str, Any]:
        """The card of a trained student; ArtifactError where there is none."""
        return artifact.read_card(self.directory, "teacher")

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines of its log: a step, and mean terms or an agreement."""
        return [json.loads(line) for line in (self.directory / LOG).read_text().splitlines()]


def train(setup: Setup) -> list[StudentRun]:
    """Trains the learners to the last step and saves each student as a teacher directory.

    Goes on from the learners' checkpoints, bit-equal on a CPU. Raises KeyboardInterrupt, after a
    checkpoint, at Ctrl-C, and Terminated at SIGTERM.
    """
    recipe, group, learners, loader = setup.recipe, setup.group, setup.learners, setup.loader
    parts, size = recipe.accumulate, loader.augmentation.size
    start = min(learner.num_steps for learner in learners)
    teacher_classes = predict(setup.teacher.net, setup.heldout, size)
    agreements: dict[str, float] = {}
    cadence = Cadence(start, recipe.steps, setup.num_views, len(setup.heldout))

    with _global_state(setup.device), stop_signal() as stop:
        batches = loader.steps(start * parts, recipe.steps * parts)
        for step in range(start, recipe.steps):
            progress = step / recipe.steps
            lr = optim.learning_rate(progress, recipe.lr, recipe.drop_at)
            # A student whose checkpoint is later than the others' waits for its step.
            running = [learner for learner in learners if learner.num_steps <= step]
            for part in range(parts):
                batch = _batch(setup, next(batches))
                for learner in _healthy(running):
                    learner.backward(batch, part, progress=progress)
            for learner in _healthy(running):
                learner.step(lr=lr)

            done = step + 1
            is_last = done == recipe.steps
            if is_last or done % cadence.log_steps == 0:
                numbers = {"lr": lr, **cadence.numbers(done, loader.waited)}
                for learner in _healthy(running):
                    learner.log_terms(numbers)
            if (is_last or done % cadence.agreement_steps == 0) and group.is_first:
                for learner in _healthy(running):
                    with learner.deployed() as net:
                        share = agreement(net, setup.heldout, teacher_classes, size)
                    agreements[learner.builder] = share
                    learner.checkpoint.write_log(done, {"agreement": share})
            if cadence.report_due() or is_last:
                numbers = cadence.numbers(done, loader.waited)
                report = cadence.line(done, numbers, _healthy(running), agreements)
                for line in report.splitlines():
                    log.info("%s", line)
            stopping = group.any_rank(done, lambda: stop.received, setup.device)
            if not is_last and (cadence.checkpoint_due() or stopping):
                for learner in _healthy(running):
                    learner.save()
                if stopping:
                    group.wait()  # torchrun kills the other ranks as soon as one exits
                    stop.interrupt()
            if not _healthy(learners):
                break
    return _finish(setup, agreements)


def _healthy(learners: Sequence[Learner]) -> list[Learner]:
    return [learner for learner in learners if learner.failure is None]


def _batch(setup: Setup, views: ViewBatch) -> Batch:
    """Views with the teacher's targets and their weights, on the device."""
    targets = setup.targets(views)
    weights_B = devices.send(setup.weights[views.index], setup.device)
    return Batch(views.pixels, weights_B, targets.logits_BC, targets.features)


def _finish(setup: Setup, agreements: Mapping[str, float]) -> list[StudentRun]:
    """Saves the students that were not stopped."""
    runs = []
    for learner in setup.learners:
        name, directory = learner.builder, learner.checkpoint.directory
        if learner.failure is None:
            with learner.deployed() as net:
                learner.checkpoint.save_student(
                    net, setup.teacher.card, agreements.get(name, 0.0), setup.lineage
                )
        state = learner.failure or "finished"
        runs.append(StudentRun(name, directory, state, agreements.get(name)))
    setup.group.wait()
    return runs


@contextlib.contextmanager
def _global_state(device: str) -> Iterator[None]:
    """Puts torch's random state and cuDNN's setting back as they were when the block ends."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True  # every batch has the same shape
    try:
        with torch.random.fork_rng(devices=devices.cuda_indices(device)):
            yield
    finally:
        torch.backends.cudnn.benchmark = before
