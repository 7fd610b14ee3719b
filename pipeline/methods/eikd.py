"""EIKD-style filter: keep confident images, and treat all confident images as equal.

Paper: Explicit and Implicit Knowledge Distillation via Unlabeled Data (arXiv 2302.08771). Only the
abstract was available (SOURCE: "efficient unlabeled selection" that raises training efficiency). It
is REC .35-.7 that the offline half is a confidence filter; the threshold is OURS. The other half
prefers images that the student has not learned yet. It depends on the student and is part of
training.
Command: make select CORPUS=... METHOD=eikd N=50000
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.method import Choice, Scored
from pipeline.methods.kd3 import filled
from pipeline.pool import Pool


@dataclass(frozen=True, kw_only=True)
class Config(Choice):
    """The method filters by confidence, then fills N. Combine it with balance=quota_with_floor for
    classes in equal shares."""

    floor_log_odds: float = 2.2
    """The threshold of the filter in nats, a largest probability of about .9. quota_with_floor uses
    the same threshold."""
    fill: Literal["random", "confidence"] = "random"
    """The choice if more than N images pass: random (OURS, because a filter does not rank and the
    most confident images teach least), or confidence, as in dfnd. If fewer pass, the most confident
    of the rest follow."""

    def scoring(self) -> dict[str, Any]:
        """Return the fields that the score depends on, which include the floor."""
        return {**super().scoring(), "floor_log_odds": self.floor_log_odds}


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Yield blocks of {"score"}, float32 [n]: images that pass score higher than all others."""
    fill = "margin" if config.fill == "confidence" else "random"
    floor = np.float32(config.floor_log_odds)
    for block in pool.blocks:
        log_odds, key_hash = block.columns("log_odds", "key_hash")
        passes = log_odds >= floor
        yield block, {"score": filled(log_odds - floor, passes, key_hash, seed, fill)}
