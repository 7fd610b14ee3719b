"""DFND's selection: keep the N most confident images, without class balance.

Paper: Learning Student Networks in the Wild (Chen et al., CVPR 2021), SOURCE. The paper ranks by
-log max p, which ties in float32; log-odds have the same order and no ties (OURS).
Command: make select CORPUS=... METHOD=dfnd N=600000
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.method import Choice, Scored
from pipeline.pool import Pool


@dataclass(frozen=True, kw_only=True)
class Config(Choice):
    """DFND uses one global ranking, and every image has weight 1."""


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Yield blocks of {"score"}, float32 [n]: the log-odds of the predicted class."""
    for block in pool.blocks:
        yield block, {"score": block.columns("log_odds")[0].astype(np.float32)}
