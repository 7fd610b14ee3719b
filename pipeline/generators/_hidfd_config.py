"""The settings of HiDFD's training, and the named sets of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every knob of the training. Weights of losses are those of the paper unless marked."""

    pixels: int = 0
    """Side of the images, a power of two; 0: the teacher's input size."""
    width: int = 64
    """Channels at full size; twice and four times as many at smaller maps."""
    epochs: float = 400.0
    batch: int = 100
    lr_generator: float = 2e-4
    lr_discriminator: float = 2e-4
    ema: float = 0.9999
    """Decay of the averaged generator; in step k at most (1 + k) / (10 + k) (OURS)."""
    trans: float = 0.1
    blend: float = 0.1
    frequency: float = 0.1
    """lambda_reg: category frequency smoothing."""
    beta: float = 0.9999
    """Of the effective number of images; 1 / (1 - beta) must exceed the counts."""
    update_steps: int = 50
    """Steps between two updates of the counts."""
    agree: float = 0.5
    """OURS: cross-entropy of the teacher's softmax of a synthetic image with the requested class.
    With 0.1 the teacher sees that class in 77.7 % instead of 90.0 %."""
    pairs: Literal["batch", "class"] = "class"
    """Which real image a synthetic one is blended with: any, or (OURS) one of its class."""
    teacher_every: int = 1
    """OURS: the teacher looks at synthetic images in every k-th step only."""

    def __post_init__(self) -> None:
        least = {"width": 1, "batch": 2, "update_steps": 1, "teacher_every": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name}={getattr(self, name)}: at least {value}")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name}={value}: a finite number, not negative")
        if not (0 < self.beta < 1 and self.ema < 1 and self.epochs > 0):
            raise ValueError("beta lies between 0 and 1, ema under 1, epochs above 0")


PRESETS: dict[str, dict[str, Any]] = {
    "faithful": {"agree": 0.0, "pairs": "batch", "teacher_every": 1},
    # For a CPU: some 2,500 steps on 5,000 images.
    "small": {
        "width": 32,
        "batch": 32,
        "epochs": 16.0,
        "lr_generator": 4e-4,
        "lr_discriminator": 4e-4,
        "teacher_every": 2,
    },
}
