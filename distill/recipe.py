"""How long and how fast a training goes: the one Recipe of every method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

LR_PER_128 = 0.1
Optimizer = Literal["sgd", "muon"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how fast. A batch holds `batch_size` views, whatever the method."""

    steps: int
    batch_size: int = 128
    lr: float = LR_PER_128
    views: int = 0
    """0: a fresh view at each visit; V: V views for ever, whatever the seed, and answers kept."""
    seed: int = 0
    optimizer: Optimizer | None = None
    """sgd, or muon for what is a matrix; None: what the method asks for."""
    drop_at: tuple[float, ...] | None = None
    """Shares of the steps at which the learning rate falls to a tenth; None: half a cosine."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 4 or self.views < 0 or not self.lr > 0:
            raise ValueError(
                f"steps must be at least 1, batch size 4, views 0 and lr above 0: not {self}"
            )
        if self.optimizer not in (None, *get_args(Optimizer)):
            known = ", ".join(get_args(Optimizer))
            raise ValueError(f"there is no optimizer {self.optimizer!r}: {known}")
