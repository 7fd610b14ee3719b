"""EIKD's filter: a confident image is kept, and all confident images are equal.

Paper: Explicit and Implicit Knowledge Distillation via Unlabeled Data (arXiv 2302.08771). Only the
abstract could be read (SOURCE: "efficient unlabeled selection" that raises training efficiency):
that its offline half is a confidence filter is REC .35-.7, the threshold is OURS. Its other half,
to prefer what the student has not learned, depends on the student and belongs into training.
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
    """Filter, then fill. balance=quota_with_floor draws as many of each class as pass."""

    floor_log_odds: float = 2.2
    """The filter (max softmax of about .9); quota_with_floor counts by the same one."""
    fill: Literal["random", "confidence"] = "random"
    """When more than N pass. random (OURS): a filter does not rank, and the most confident teach
    least. confidence: the most confident first, as `dfnd`. When fewer pass, the most confident of
    the rest follow.
    """

    def scoring(self) -> dict[str, Any]:
        """The score depends on the floor too."""
        return {**super().scoring(), "floor_log_odds": self.floor_log_odds}


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Blocks of {"score"}: above that of the others for what passes, float32 [n]."""
    fill = "margin" if config.fill == "confidence" else "random"
    floor = np.float32(config.floor_log_odds)
    for block in pool.blocks:
        log_odds, key_hash = block.columns("log_odds", "key_hash")
        passes = log_odds >= floor
        yield block, {"score": filled(log_odds - floor, passes, key_hash, seed, fill)}
