"""The training: one pass over the shards feeds any number of students.

The defaults: SGD with Nesterov momentum .9 and weight decay 5e-4, or Muon where the method asks for
it, learning rate .1 per 128 images of a batch with a short warm-up and a cosine, bf16 where it is
native.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from distill import provenance
from distill.distributed import SINGLE, ProcessGroup
from distill.evaluation.accuracy import agreement, predict
from distill.method import Batch, method_class
from distill.recipe import LR_PER_128, Mix, Recipe
from distill.training import build, optim
from distill.training.cadence import Cadence
from indexes import devices
from indexes.checkpoint import stop_signal
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards

__all__ = ["LR_PER_128", "Mix", "Outcome", "Recipe", "train"]


@dataclass(frozen=True)
class Outcome:
    """What became of a student.

    `state`: finished, already (was there before), or why it was stopped: diverged, out of memory,
    refused (by its method).
    """

    student: str
    directory: Path
    state: str
    agreement: float | None

    @property
    def is_student(self) -> bool:
        """Whether there is a student now."""
        return self.state in ("finished", "already")


def train(
    shards: Shards,
    teacher: Teacher,
    students: Mapping[str, Path],
    method: ModuleType,
    config: Any,
    recipe: Recipe,
    *,
    mix: Mix | None = None,
    device: str = "cpu",
    targets_in: Path,
    fresh: bool = False,
    workers: int | None = None,
    budget_bytes: int | None = None,
    trust_builder: bool = False,
    kept_targets: Path | None = None,
    group: ProcessGroup = SINGLE,
) -> list[Outcome]:
    """Trains `students` (builder -> directory) and saves each as a teacher directory.

    Resumes whatever was cut off, bit-equal on a CPU, and leaves finished students alone. `method`
    is a file of distill/methods and `config` its Config; `mix` is a second shard set whose images
    are so large a share of each batch; `targets_in` is where answers to kept views are looked for
    and made, `kept_targets` names those to use. `group` are the processes that train together.
    Raises ArtifactError for a directory of other settings or shards of another teacher, NetError
    for an unknown student, KeyboardInterrupt after a checkpoint at SIGTERM or Ctrl-C.
    """
    devices.keep_memory(device)
    kind = method_class(method)
    recipe = replace(recipe, optimizer=recipe.optimizer or kind.optimizer)  # recorded by its name
    outcomes = {name: Outcome(name, place, "already", None) for name, place in students.items()}
    with torch.random.fork_rng(devices=_cuda_index(device)):
        inputs = build.training_inputs(shards, mix, teacher, method, config, recipe)
        learners = build.build_learners(
            students, kind, teacher, config, inputs, recipe, device, fresh, trust_builder, group
        )
        if not learners:
            return list(outcomes.values())
        feed, stock, heldout = build.build_loader(
            shards, mix, teacher, kind, config, recipe, device, workers, budget_bytes, group
        )
        answers = build.build_targets(
            stock, teacher, kind.needs(config), recipe, device, targets_in, kept_targets, group
        )
        weights_N, parts = stock.weights, recipe.accumulate
        start = min(learner.step for learner in learners)
        expected = predict(teacher.net, heldout, feed.look.size)
        agreed: dict[str, float] = {}
        num_views = feed.order.per_step * kind.views * parts
        pace = Cadence(start, recipe.steps, num_views, len(heldout))

        with stop_signal() as stop_asked:
            stream = feed.steps(start * parts, recipe.steps * parts)
            for step in range(start, recipe.steps):
                progress = step / recipe.steps
                lr = optim.learning_rate(progress, recipe.lr, recipe.drop_at)
                # A student whose checkpoint is later than the others' waits for its step.
                running = [one for one in learners if one.failure is None and one.step <= step]
                for part in range(parts):
                    seen = next(stream)
                    answer = answers.answer(seen)
                    weights_B = devices.send(weights_N[seen.index], device)
                    batch = Batch(seen.pixels, weights_B, answer.logits_BC, answer.features)
                    for learner in running:
                        learner.learn(part, batch, progress=progress)
                    running = [one for one in running if one.failure is None]
                for learner in running:
                    learner.take(lr=lr)
                running = [one for one in running if one.failure is None]

                done = step + 1
                last = done == recipe.steps
                logging = last or done % pace.log_steps == 0
                if logging:
                    numbers = pace.numbers(done, feed.waited)
                    for learner in running:
                        learner.log(lr=lr, **numbers)
                    running = [one for one in running if one.failure is None]
                if (last or done % pace.agreement_steps == 0) and group.is_first:
                    for learner in running:
                        with learner.deployed() as net:
                            share = agreement(net, heldout, expected, feed.look.size)
                        agreed[learner.builder] = share
                        learner.write(agreement=share)
                if pace.print_due() or last:
                    line = pace.line(done, pace.numbers(done, feed.waited), running, agreed)
                    print(line, file=sys.stderr, flush=True)
                stopping = group.any_rank(done, stop_asked, device)
                if not last and (pace.checkpoint_due() or stopping):
                    for learner in running:
                        learner.save()
                    if stopping:
                        group.wait()  # who leaves first has torchrun end the others
                        raise KeyboardInterrupt
                if all(learner.failure is not None for learner in learners):
                    break

        origins = provenance.summarize_shards(shards, mix)
        for learner in learners:
            name = learner.builder
            if learner.failure is None:
                learner.finish(teacher.card, agreed.get(name, 0.0), origins)
            state = learner.failure or "finished"
            outcomes[name] = Outcome(name, learner.directory, state, agreed.get(name))
        group.wait()
    return list(outcomes.values())


def _cuda_index(device: str) -> list[int]:
    """The GPUs whose random state is put back after a training."""
    if not device.startswith("cuda"):
        return []
    torch.backends.cudnn.benchmark = True  # every batch has the same shape
    return [torch.device(device).index or 0]
