"""Train tiny students in this process, and compare what came out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distill import train
from distill.training.learner import Learner
from indexes.models.teacher import Teacher
from indexes.models.weights import read_safetensors
from indexes.plugins import find
from indexes.shards.reader import Shards

World = tuple[Shards, Teacher]
VIT = "timm:vit_tiny_patch16_224:patch_size=8:depth=2:embed_dim=24:num_heads=2"
"""A student without BatchNorm, whose gradient does not depend on how a batch is split."""


def run(
    world: World,
    out: Path,
    method: str = "kd",
    students: tuple[str, ...] = ("resnet8",),
    *,
    steps: int = 4,
    config: Any = None,
    recipe: dict[str, Any] | None = None,
    **options: Any,
) -> list[train.Outcome]:
    shards, teacher = world
    module = find("distill.methods", method)
    return train.train(
        shards,
        teacher,
        {name: out / name for name in students},
        module,
        config or module.Config(),
        train.Recipe(**{"steps": steps, "batch_size": 16, **(recipe or {})}),
        targets_in=out / "targets",
        **options,
    )


def weights_of(directory: Path) -> dict[str, Tensor]:
    return read_safetensors(directory / "model.safetensors")


def same(first: Path, second: Path) -> bool:
    a, b = weights_of(first), weights_of(second)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def log_lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


@contextmanager
def killed_at(step: int, *, save_at: int) -> Iterator[None]:
    """A checkpoint after `save_at` steps, death in step `step`."""
    learn = Learner.learn

    def dying(self: Learner, *args: Any, **kwargs: Any) -> None:
        if self.step == step:
            raise RuntimeError("killed")
        learn(self, *args, **kwargs)

    calls = iter(range(1, 1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "learn", dying)
        patch.setattr(train.Pace, "checkpoint_due", lambda self: next(calls) == save_at)
        with pytest.raises(RuntimeError, match="killed"):
            yield
