"""The training: one pass over the shards feeds any number of students.

The defaults: SGD with Nesterov momentum .9, weight decay 5e-4, learning rate .1 per 128 images of
a batch with a short warm-up and a cosine, bf16 where it is native.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from distill import data, optim, targets, views
from distill.evaluate import agreement, predict
from distill.learner import Learner, finished_or_refused, forget
from distill.method import Batch, Method, method_class
from distill.order import Order, normalised_weights, split
from distill.pace import Pace, stop_signal
from indexes import artefact, devices
from indexes.shards import Shards
from indexes.teachers import Teacher

LR_PER_128 = 0.1
CODE_VERSION = 1  # of what a training computes: a checkpoint of another one is refused


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how fast. A batch holds `batch_size` views, whatever the method."""

    steps: int
    batch_size: int = 128
    lr: float = LR_PER_128
    views: int = 0
    """0: a fresh view at each visit; V: V views for ever, whatever the seed, and answers kept."""
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
    trust_builder: bool = False,
) -> list[Outcome]:
    """Trains `students` (builder -> directory) and saves each as a teacher directory.

    Resumes whatever was cut off, bit-equal on a CPU, and leaves finished students alone. `method`
    is a file of distill/methods and `config` its Config; `targets_in` is where answers are kept.
    Raises ArtefactError for a directory of other settings or shards of another teacher, NetError
    for an unknown student, KeyboardInterrupt after a checkpoint at SIGTERM or Ctrl-C.
    """
    kind = method_class(method)
    outcomes = {name: Outcome(name, place, "already", None) for name, place in students.items()}
    with torch.random.fork_rng(devices=_cuda_index(device)):
        inputs = _inputs(shards, teacher, method, config, recipe)
        learners = _learners(
            students, kind, teacher, config, inputs, recipe.seed, device, fresh, trust_builder
        )
        if not learners:
            return list(outcomes.values())
        feed, weights_N, heldout = _open(
            shards, teacher, recipe, kind, device, workers, budget_bytes
        )
        answers = _targets(shards, teacher, recipe, kind, device, targets_in, len(weights_N))
        start = min(learner.step for learner in learners)
        expected = predict(teacher.net, heldout, feed.size)
        agreed: dict[str, float] = {}
        pace = Pace(start, recipe.steps, feed.order.per_step * kind.views)

        with stop_signal() as stop_asked:
            stream = feed.steps(start, recipe.steps)
            for step in range(start, recipe.steps):
                pace.wait()
                seen = next(stream)
                pace.go()

                answer = answers.answer(seen)
                weights_B = weights_N[torch.from_numpy(seen.index).to(device)]
                batch = Batch(seen.pixels, weights_B, answer.logits_BC, answer.features_BD)
                progress = step / recipe.steps
                lr = optim.learning_rate(progress, recipe.lr)
                # A student whose checkpoint is later than the others' waits for its step.
                running = [one for one in learners if one.failed_at is None and one.step <= step]
                for learner in running:
                    learner.take(step, batch, progress=progress, lr=lr)

                done = step + 1
                if done % pace.log_steps == 0 or done == recipe.steps:
                    for learner in running:
                        learner.log(lr=lr, **pace.numbers(done))
                    running = [one for one in running if one.failed_at is None]
                if done % pace.agreement_steps == 0 or done == recipe.steps:
                    for learner in running:
                        net = learner.method.deployed()
                        agreed[learner.builder] = agreement(net, heldout, expected, feed.size)
                        learner.write(agreement=agreed[learner.builder])
                if pace.print_due() or done == recipe.steps:
                    print(pace.line(done, running, agreed), file=sys.stderr, flush=True)
                if done < recipe.steps and (pace.checkpoint_due() or stop_asked()):
                    answers.flush()
                    for learner in running:
                        learner.save()
                    if stop_asked():
                        raise KeyboardInterrupt
                if all(learner.failed_at is not None for learner in learners):
                    break

        answers.flush()
        for learner in learners:
            name, state = learner.builder, "diverged"
            if learner.failed_at is None:
                learner.finish(teacher.card, agreed[name])
                state = "finished"
            outcomes[name] = Outcome(name, learner.directory, state, agreed.get(name))
    return list(outcomes.values())


def _cuda_index(device: str) -> list[int]:
    """The GPUs whose random state is put back after a training."""
    if not device.startswith("cuda"):
        return []
    torch.backends.cudnn.benchmark = True  # every batch has the same shape
    return [torch.device(device).index or 0]


def _inputs(
    shards: Shards, teacher: Teacher, method: ModuleType, config: Any, recipe: Recipe
) -> dict[str, Any]:
    """All that a student's weights depend on, but its builder; people read it in the card."""
    return {
        "shards_digest": artefact.digest(shards.card),
        "teacher_digest": teacher.card.digest,
        "method": Path(str(method.__file__)).stem,
        "method_sha256": _own_code(method),
        "config": config,
        "recipe": recipe,
        "version": CODE_VERSION,
    }


def _own_code(method: ModuleType) -> str | None:
    """The digest of a user's own file; a method of ours is told by CODE_VERSION."""
    ours = method.__name__.startswith("distill.methods.")
    return None if ours else artefact.sha256(str(method.__file__))


def _learners(
    students: Mapping[str, Path],
    kind: type[Method],
    teacher: Teacher,
    config: Any,
    inputs: Mapping[str, Any],
    seed: int,
    device: str,
    fresh: bool,
    trust_builder: bool,
) -> list[Learner]:
    """A learner for each student that is not finished, at its checkpoint where it has one."""
    learners = []
    for builder, directory in students.items():
        its_inputs = {**inputs, "student": builder}
        if fresh:
            forget(directory)
        if finished_or_refused(directory, its_inputs):
            continue
        learner = Learner(
            builder,
            directory,
            its_inputs,
            lambda net: kind(net, teacher, config),
            teacher=teacher.card,
            seed=seed,
            device=device,
            trust_builder=trust_builder,
        )
        if learner.step:
            print(f"{builder}: goes on at step {learner.step:,}", file=sys.stderr, flush=True)
        learners.append(learner)
    return learners


def _open(
    shards: Shards,
    teacher: Teacher,
    recipe: Recipe,
    kind: type[Method],
    device: str,
    workers: int | None,
    budget_bytes: int | None,
) -> tuple[data.Feed, Tensor, Tensor]:
    """The feed, the weights [N] of its images, and the stored held-out images [M, R, R, 3]."""
    if recipe.views and recipe.views < kind.views:
        raise ValueError(f"this method compares {kind.views} views: --views 0, or at least that")
    rows = split(shards.columns["key_hash"])
    weights = normalised_weights(shards.columns["weight"][rows.train])
    geometry = data.stored_geometry(teacher.geometry)
    order = Order(len(rows.train), recipe.batch_size // kind.views, recipe.seed)
    source = data.open_source(
        shards,
        rows.train,
        geometry,
        order,
        device=device,
        workers=workers,
        budget_bytes=budget_bytes,
    )
    feed = data.Feed(
        source,
        order,
        shards.columns["key_hash"][rows.train],
        size=teacher.geometry.size,
        per_image=kind.views,
        num_views=recipe.views,
        # Kept views are the same for every seed, so that the teacher is asked about them once.
        seed=0 if recipe.views else recipe.seed,
    )
    heldout = data.decode_all(shards, rows.heldout, geometry, device)
    return feed, torch.from_numpy(weights).to(device), heldout


def _targets(
    shards: Shards,
    teacher: Teacher,
    recipe: Recipe,
    kind: type[Method],
    device: str,
    targets_in: Path,
    num_rows: int,
) -> targets.Targets:
    """Who answers: the teacher at each step, or a file of its answers under `targets_in`."""

    def ask(pixels: Tensor) -> tuple[Tensor, Tensor]:
        with devices.autocast(device):
            _, features_BD, logits_BC = teacher(pixels)
        return logits_BC, features_BD

    if not recipe.views:
        return targets.Online(ask, features=kind.needs_features)
    key = {
        "shards": artefact.digest(shards.card),
        "teacher": teacher.card.digest,
        "views": recipe.views,
        "version": views.VERSION,
        "device": torch.device(device).type,
    }
    width = teacher.net.num_features if kind.needs_features else None
    name = f"{shards.directory.name}-{artefact.digest({**key, 'width': width})[:12]}"
    shape = num_rows, recipe.views, len(teacher.card.classes)
    return targets.Cached(ask, targets_in / name, key, shape, width)
