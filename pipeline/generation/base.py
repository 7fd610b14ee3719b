"""What a file of pipeline/generators is: a Config, its presets, a trainer and a sampler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from indexes.models.teacher import Teacher
from pipeline.generation.dataset import TrainingImages

# Classes [n] and a source of randomness -> images uint8 [n, P, P, 3].
Sampler = Callable[[Tensor, torch.Generator], Tensor]


class Trainer(Protocol):
    """A generator in training. What step k computes depends on seed, state and k alone."""

    steps: int
    batch_size: int

    def step(self, number: int) -> dict[str, Tensor]:
        """One step; its named terms, detached scalars. A term may be absent in some steps."""

    def state_dict(self) -> dict[str, Any]:
        """All that a later step depends on: tensors, numbers, and dicts and lists of them."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state_dict` gave, with its tensors on the CPU."""

    def result(self) -> dict[str, Tensor]:
        """The tensors that a sampler needs."""


class Generator(Protocol):
    """A module in pipeline/generators, or a user's own file."""

    Config: type[Any]
    PRESETS: Mapping[str, Mapping[str, Any]]
    VERSION: int  # of what a training computes: another one is another artifact

    def side(self, config: Any, input_size: int) -> int:
        """P, the side of the images for a teacher of this input size."""

    def trainer(
        self, config: Any, images: TrainingImages, teacher: Teacher, *, seed: int, device: str
    ) -> Trainer:
        """The training of one generator, at its first step."""

    def sampler(
        self, config: Any, side: int, num_classes: int, tensors: Mapping[str, Tensor], device: str
    ) -> Sampler:
        """A function that draws images with the tensors of a finished training."""
