"""The default method: confident and hard images of each class, with outliers ranked last.

- Confidence within class quotas gives pure classes, but the most confident images teach much the
  same. Between two images of similar confidence, the method prefers the harder one: the image that
  small probes (pipeline/scores/probe.py) could not learn from the most confident images.
- The statistics of the teacher's middle BatchNorms describe the lost training data. Symbols, game
  tiles and drawings are far from them even if the teacher is confident. Such images rank last.
- The weights make the teacher's softened targets, from which a student learns, even over classes.

OURS; docs/LOG.md has the ablation. Command: make select CORPUS=... N=50000
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.method import Choice, Scored
from pipeline.pool import Pool
from pipeline.selection.scale import Scale
from pipeline.selection.top_n import Balance
from pipeline.weighting.weights import Weighing

ODD = 128.0
"""Bits by which the score of an out-of-distribution image is lowered: more than any pool's rank."""


@dataclass(frozen=True, kw_only=True)
class Config(Choice):
    """The score is -log2 of the share of candidates with higher log-odds, plus `hardness_weight`
    times the rank by `proxy_kl`, minus ODD for the `ood_frac` farthest by `bn_distance`."""

    hardness_weight: float = 2.0
    """Weight of hardness, in bits. At 2, the hardest image may rank four times lower by confidence
    than the easiest. Use more for long trainings and less for short ones."""
    ood_frac: float = 0.2
    """Share of the pool that counts as out-of-distribution. These images are kept only if a class
    has no others. It has no effect on a teacher without BatchNorm."""
    balance: Balance = "quota_with_floor"
    weights: Weighing = "soft_prior"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.hardness_weight <= ODD / 2:
            raise ValueError(
                f"hardness_weight={self.hardness_weight}: must be from 0 to {ODD / 2:.0f} bits"
            )
        if not 0 <= self.ood_frac < 1:
            raise ValueError(f"ood_frac={self.ood_frac}: must be a share of the pool, below 1")


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Yield blocks of {"score"}, float32 [n]."""
    confidence = Scale(pool, "log_odds", "neg_log2_rank")
    hardness = None
    if config.hardness_weight and pool.has("proxy_kl"):
        hardness = Scale(pool, "proxy_kl", "rank")
    oddness = Scale(pool, "bn_distance", "rank") if pool.has("bn_distance") else None
    for block in pool.blocks:
        rows = slice(block.start, block.stop)
        total = confidence(pool.column("log_odds")[rows])
        if hardness is not None:
            total += np.float32(config.hardness_weight) * hardness(pool.column("proxy_kl")[rows])
        if oddness is not None:
            odd = oddness(pool.column("bn_distance")[rows]) > 1 - config.ood_frac
            total -= np.float32(ODD) * odd
        yield block, {"score": total}
