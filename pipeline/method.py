"""What every offline method's `Config` has: how its scores become rows, and rows weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy.typing as npt

from indexes.embeddings import Block
from pipeline.pool import Pool
from pipeline.selection.top_n import Balance
from pipeline.weighting.weights import Weighing

Scored = Iterator[tuple[Block, dict[str, npt.NDArray[Any]]]]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A method's `Config` derives from this; its own fields are those of its score."""

    balance: Balance = "global"
    """global: the N best. quota: an equal share a class. quota_with_floor: only above the floor,
    classes that run short give their share to the others. all: everything."""
    floor_log_odds: float = 0.0
    """quota_with_floor keeps images whose top class has more than half of the probability."""
    weights: Weighing = "none"
    """none; class_prior: an image of a short class counts more; soft_prior: such that the
    teacher's softened targets give every class the same; confidence: as the teacher's largest
    probability; moment_match: such that the teacher's BatchNorm sees the lost data."""
    weight_cap: float = 4.0
    """The largest weight, in means."""
    weight_floor: float = 0.5
    """The effective sample size that soft_prior and moment_match leave, as a share of N."""

    def __post_init__(self) -> None:
        if not self.weight_cap >= 1:
            raise ValueError(f"weight_cap={self.weight_cap}: at least 1, for weights of mean 1")
        if not 0 <= self.weight_floor < 1:
            raise ValueError(f"weight_floor={self.weight_floor}: a share of the images, 0 to 1")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{field.name}={value} is not finite")

    def scoring(self) -> dict[str, Any]:
        """The fields that scores depend on: all but the ones of this base."""
        base = {field.name for field in fields(Choice)}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in base}


@dataclass(frozen=True)
class Method:
    """A method of selection with its settings; `digest` tells its code from any other."""

    module: OfflineMethod
    name: str
    digest: str
    config: Choice

    def score(self, pool: Pool, seed: int) -> Scored:
        """The method's columns, block by block."""
        return self.module.score(pool, self.config, seed)


class OfflineMethod(Protocol):
    """A module in pipeline/methods, or a user's own file."""

    @property
    def Config(self) -> type[Choice]:
        """The method's own settings."""

    def score(self, pool: Pool, config: Any, seed: int) -> Scored:
        """Blocks of named columns float32 [n]; `score` is the one that selects."""
