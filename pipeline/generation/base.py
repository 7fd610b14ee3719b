"""The interface of a generator: a Config, its presets, a trainer and a sampler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from indexes.models.teacher import Teacher
from pipeline.generation.dataset import TrainingImages

# Maps classes [n] and a random generator to images uint8 [n, P, P, 3].
Sampler = Callable[[Tensor, torch.Generator], Tensor]


class Trainer(Protocol):
    """A generator in training. The result of step k depends on seed, state and k alone."""

    steps: int
    batch_size: int

    def step(self, number: int) -> dict[str, Tensor]:
        """Run one training step and return its loss terms by name, each a detached scalar.

        A term may be absent in some steps.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later steps depend on: tensors, numbers, dicts and lists."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state_dict`, whose tensors are on the CPU."""

    def result(self) -> dict[str, Tensor]:
        """Return the tensors that a sampler needs, by name, such as weights [D, D, 3, 3]."""


class Generator(Protocol):
    """The interface of a module in pipeline/generators, or of a user's .py file."""

    Config: type[Any]
    PRESETS: Mapping[str, Mapping[str, Any]]
    VERSION: int  # version of the training: a new one leads to a new artifact

    def side(self, config: Any, input_size: int) -> int:
        """Return P, the side of the images in pixels, for a teacher of this input size."""

    def trainer(
        self, config: Any, images: TrainingImages, teacher: Teacher, *, seed: int, device: str
    ) -> Trainer:
        """Return the training of a generator at its first step."""

    def sampler(
        self, config: Any, side: int, num_classes: int, tensors: Mapping[str, Tensor], device: str
    ) -> Sampler:
        """Return a function that draws images with the tensors of a finished training.

        It maps classes [B] and a random generator to images uint8 [B, P, P, 3].
        """
