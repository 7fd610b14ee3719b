"""Train small students in this process, and compare the results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distill.recipe import Recipe
from distill.run import train_students
from distill.train import StudentRun
from distill.training.build import TrainingJob
from distill.training.cadence import Cadence
from distill.training.learner import Learner
from indexes.models.teacher import Teacher
from indexes.models.weights import read_safetensors
from indexes.plugins import find
from indexes.shards.reader import Shards

World = tuple[Shards, Teacher]
VIT = "timm:vit_tiny_patch16_224:patch_size=8:depth=2:embed_dim=24:num_heads=2"
"""A student without BatchNorm, whose gradient does not depend on how a batch is split."""


def job(
    world: World,
    out: Path,
    method: str = "kd",
    students: tuple[str, ...] = ("resnet8",),
    *,
    steps: int = 4,
    config: Any = None,
    recipe: dict[str, Any] | None = None,
    **options: Any,
) -> TrainingJob:
    shards, teacher = world
    module = find("distill.methods", method)
    return TrainingJob(
        shards=shards,
        teacher=teacher,
        students={name: out / name for name in students},
        method=module,
        config=config or module.Config(),
        recipe=Recipe(**{"steps": steps, "batch_size": 16, **(recipe or {})}),
        targets_root=out / "targets",
        **options,
    )


def run(world: World, out: Path, *words: Any, **options: Any) -> list[StudentRun]:
    """Train the students of `job`."""
    return train_students(job(world, out, *words, **options))


def weights_of(directory: Path) -> dict[str, Tensor]:
    return read_safetensors(directory / "model.safetensors")


def same(first: Path, second: Path) -> bool:
    a, b = weights_of(first), weights_of(second)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def log_lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


def losses(directory: Path) -> list[float]:
    """Return the total loss of each line of a log."""
    return [line["terms"]["total"] for line in log_lines(directory) if "terms" in line]


@contextmanager
def killed_at(step: int, *, save_at: int) -> Iterator[None]:
    """Save a checkpoint after `save_at` steps and fail in step `step`."""
    backward = Learner.backward

    def dying(self: Learner, *args: Any, **kwargs: Any) -> None:
        if self.num_steps == step:
            raise RuntimeError("killed")
        backward(self, *args, **kwargs)

    calls = iter(range(1, 1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "backward", dying)
        patch.setattr(Cadence, "checkpoint_due", lambda self: next(calls) == save_at)
        with pytest.raises(RuntimeError, match="killed"):
            yield
