"""Control: every image of the pool; N is ignored.

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
    """Everything, in one global ranking of equals."""

    balance: Balance = "all"


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Blocks of {"score"}: zero, float32 [n]."""
    for block in pool.blocks:
        yield block, {"score": np.zeros(len(block), np.float32)}
