"""The training loop: one pass over the shards feeds any number of students.

By default, the optimizer is SGD with Nesterov momentum 0.9 and weight decay 5e-4, or Muon if the
method uses it. The learning rate is 0.1 per 128 images in a batch, with a short warm-up and a
cosine. The precision is bf16 where it is native.
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
    """The result of training one student.

    `state` is finished, already (finished by an earlier run), or the reason why the student was
    stopped: diverged, out of memory, or refused (by its method). `agreement` is the share of
    held-out images, in 0-1, to which the student gives the same class as its teacher.
    """

    name: str
    directory: Path
    state: str
    agreement: float | None

    @property
    def is_trained(self) -> bool:
        """Whether the directory holds a trained student."""
        return self.state in ("finished", "already")

    @property
    def card(self) -> dict[str, Any]:
        """The card of the trained student. Raises ArtifactError if there is none."""
        return artifact.read_card(self.directory, "teacher")

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines of the log. Each has a step, and mean terms or an agreement."""
        return [json.loads(line) for line in (self.directory / LOG).read_text().splitlines()]


def train(setup: Setup) -> list[StudentRun]:
    """Train the learners to the last step and save each student as a teacher directory.

    The training continues from the learners' checkpoints, bit-equal on a CPU. After Ctrl-C or
    SIGTERM it saves a checkpoint; then it raises KeyboardInterrupt or Terminated.
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
            lr = optim.learning_rate(progress, recipe.lr, recipe.drop_at, recipe.warmup_frac)
            # A student with a later checkpoint than the others waits for its step.
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
    """Return the views with the teacher's targets and the weights, on the device."""
    targets = setup.targets(views)
    weights_B = devices.send(setup.weights[views.index], setup.device)
    return Batch(views.pixels, weights_B, targets.logits_BC, targets.features, stage=targets.stage)


def _finish(setup: Setup, agreements: Mapping[str, float]) -> list[StudentRun]:
    """Save the students that were not stopped; return the result of each."""
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
    """Set cuDNN's benchmark mode; restore it and torch's random state when the block ends."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True  # every batch has the same shape
    try:
        with torch.random.fork_rng(devices=devices.cuda_indices(device)):
            yield
    finally:
        torch.backends.cudnn.benchmark = before
