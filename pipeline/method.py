"""The settings that all selection methods share, and the interface of a method."""

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
    """Base of every method's `Config`. It turns scores into rows and weights.

    The fields that a subclass adds are the settings of its score. Raises ValueError for a setting
    out of range.
    """

    balance: Balance = "global"
    """global keeps the N best. quota keeps an equal share per class. quota_with_floor does so above
    floor_log_odds first. all keeps everything. Small classes pass unused quota on."""
    floor_log_odds: float = 0.0
    """The least log-odds (nats) that quota_with_floor prefers. At 0 the top class has more than
    half of the probability."""
    weights: Weighing = "none"
    """none, class_prior (equal classes), soft_prior (equal softened targets), confidence (the
    largest probability) or moment_match (match the BatchNorm statistics)."""
    weight_cap: float = 4.0
    """The largest weight, as a multiple of the mean weight."""
    weight_floor: float = 0.5
    """The least effective sample size that soft_prior and moment_match leave, as a share of N."""

    def __post_init__(self) -> None:
        if not self.weight_cap >= 1:
            raise ValueError(
                f"weight_cap={self.weight_cap}: must be at least 1, because weights have mean 1"
            )
        if not 0 <= self.weight_floor < 1:
            raise ValueError(
                f"weight_floor={self.weight_floor}: must be a share of the images, 0 <= share < 1"
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{field.name}={value}: must be a finite number")

    def scoring(self) -> dict[str, Any]:
        """Return the fields that scores depend on: all but those of this base class.

        Example:
            >>> Choice(weights="class_prior").scoring()
            {}
        """
        base = {field.name for field in fields(Choice)}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in base}


@dataclass(frozen=True)
class Method:
    """A selection method with its settings; `digest` identifies its code."""

    module: OfflineMethod
    name: str
    digest: str
    config: Choice

    def score(self, pool: Pool, seed: int) -> Scored:
        """Return the method's columns, block by block."""
        return self.module.score(pool, self.config, seed)


class OfflineMethod(Protocol):
    """The interface of a selection method: a module in pipeline/methods, or a user's .py file."""

    @property
    def Config(self) -> type[Choice]:
        """The class of the method's settings."""

    def score(self, pool: Pool, config: Any, seed: int) -> Scored:
        """Yield named columns float32 [n] block by block; images are ranked by `score`."""
