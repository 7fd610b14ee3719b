"""A method with an untrained student, and a batch for the method."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from distill.method import Batch, method_class
from distill.targets.fast_teacher import teacher_function
from indexes.models.net import build_net
from indexes.models.teacher import Teacher
from indexes.plugins import find
from indexes.shards.reader import Shards

World = tuple[Shards, Teacher]
pytestmark = pytest.mark.usefixtures("one_thread")


def make(world: World, method: str, student: str = "resnet8", **settings: Any) -> Any:
    module = find("distill.methods", method)
    torch.manual_seed(0)
    net = build_net(student, num_classes=3, input_size=32)
    return method_class(module)(net, world[1], module.Config(**settings))


def make_batch(world: World, method: Any, num: int = 12, *, weights: Tensor | None = None) -> Batch:
    generator = torch.Generator().manual_seed(1)
    colors = torch.rand(num, 3, 1, 1, generator=generator)
    noise = torch.rand(num, 3, 32, 32, generator=generator)
    pixels = 0.7 * colors + 0.3 * noise
    needs = method.needs(method.config)
    logits, features, stage = teacher_function(world[1], needs, "cpu")(pixels)
    weights = torch.ones(num) if weights is None else weights
    return Batch(pixels, weights, logits, features, stage=stage)
