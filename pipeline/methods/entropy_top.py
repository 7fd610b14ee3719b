"""Control: the N images of which the teacher is least sure (highest entropy of its softmax).

MosaicKD's OOD subset (SOURCE), the opposite of confidence. With soft targets it can win.
Command: make select CORPUS=... METHOD=entropy_top N=50000
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.method import Choice, Scored
from pipeline.pool import Pool


@dataclass(frozen=True, kw_only=True)
class Config(Choice):
    """One global ranking by entropy, every image weighs the same."""


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Blocks of {"score"}: the entropy of the softmax in nats, float32 [n]."""
    for block in pool.blocks:
        yield block, {"score": block.columns("entropy")[0].astype(np.float32)}
