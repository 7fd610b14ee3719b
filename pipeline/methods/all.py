"""Control: keep every candidate of the pool; N is ignored.

Command: make select CORPUS=... METHOD=all
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.method import Choice, Scored
from pipeline.pool import Pool
from pipeline.selection.top_n import Balance


@dataclass(frozen=True, kw_only=True)
class Config(Choice):
    """The control keeps all candidates with equal scores."""

    balance: Balance = "all"


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Yield blocks of {"score"}, float32 [n]: zero for every image."""
    for block in pool.blocks:
        yield block, {"score": np.zeros(len(block), np.float32)}
