"""Control: keep the N least confident images, those with the highest entropy of the softmax.

This is MosaicKD's OOD subset (SOURCE), the opposite of confidence. With soft targets it can be
better than confidence.
Command: make select CORPUS=... METHOD=entropy_top N=50000
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.method import Choice, Scored
from pipeline.pool import Pool


@dataclass(frozen=True, kw_only=True)
class Config(Choice):
    """The control uses one global ranking by entropy, and every image has weight 1."""


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Yield blocks of {"score"}, float32 [n]: the entropy of the softmax in nats."""
    for block in pool.blocks:
        yield block, {"score": block.columns("entropy")[0].astype(np.float32)}
