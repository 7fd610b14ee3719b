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

from distill import lineage, optim, setting
from distill.evaluate import agreement, predict
from distill.method import Batch, method_class
from distill.pace import Pace
from distill.recipe import LR_PER_128, Recipe
from distill.setting import Mix
from indexes.checkpoint import stop_signal
from indexes.shards import Shards
from indexes.teachers import Teacher

__all__ = ["LR_PER_128", "Mix", "Outcome", "Recipe", "train"]


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
    mix: Mix | None = None,
    device: str = "cpu",
    targets_in: Path,
    fresh: bool = False,
    workers: int | None = None,
    budget_bytes: int | None = None,
    trust_builder: bool = False,
) -> list[Outcome]:
    """Trains `students` (builder -> directory) and saves each as a teacher directory.

    Resumes whatever was cut off, bit-equal on a CPU, and leaves finished students alone. `method`
    is a file of distill/methods and `config` its Config; `mix` is a second shard set whose images
    are so large a share of each batch; `targets_in` is where answers are kept.
    Raises ArtefactError for a directory of other settings or shards of another teacher, NetError
    for an unknown student, KeyboardInterrupt after a checkpoint at SIGTERM or Ctrl-C.
    """
    kind = method_class(method)
    recipe = replace(recipe, optimizer=recipe.optimizer or kind.optimizer)  # recorded by its name
    outcomes = {name: Outcome(name, place, "already", None) for name, place in students.items()}
    with torch.random.fork_rng(devices=_cuda_index(device)):
        inputs = setting.inputs(shards, mix, teacher, method, config, recipe)
        learners = setting.learners(
            students, kind, teacher, config, inputs, recipe, device, fresh, trust_builder
        )
        if not learners:
            return list(outcomes.values())
        feed, weights_N, heldout = setting.images(
            shards, mix, teacher, kind, config, recipe, device, workers, budget_bytes
        )
        answers = setting.answers(
            shards, mix, teacher, kind.needs(config), recipe, device, targets_in, len(weights_N)
        )
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
                batch = Batch(seen.pixels, weights_B, answer.logits_BC, answer.features)
                progress = step / recipe.steps
                lr = optim.learning_rate(progress, recipe.lr, recipe.drop_at)
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
                learner.finish(teacher.card, agreed[name], lineage.summary(shards, mix))
                state = "finished"
            outcomes[name] = Outcome(name, learner.directory, state, agreed.get(name))
    return list(outcomes.values())


def _cuda_index(device: str) -> list[int]:
    """The GPUs whose random state is put back after a training."""
    if not device.startswith("cuda"):
        return []
    torch.backends.cudnn.benchmark = True  # every batch has the same shape
    return [torch.device(device).index or 0]
