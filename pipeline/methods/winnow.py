"""Our own method: the most confident images of each class, without those unlike the lost data.

Confidence within class quotas buys purity, but the most confident images teach much the same. Of
two images of about the same confidence the better one is the one that small probes
(pipeline/scores/probe.py) could not learn from the most confident images. The
teacher's middle BatchNorms know what the lost images looked like: symbols, game tiles and drawings
are far off, however sure the teacher is of them. The weights then make the teacher's softened
targets, which a student learns from, even over the classes. OURS; docs/LOG.md has the ablation.
Command: make select CORPUS=... N=50000
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
"""Halvings that an odd image is put back by: more than any pool has."""


@dataclass(frozen=True, kw_only=True)
class Config(Choice):
    """score = bits of the image's rank by log-odds (-log2 of the share above it)
    + `hardness_weight` x its rank by `proxy_kl`, less ODD for one of those farthest by
    `bn_distance`."""

    hardness_weight: float = 2.0
    """What it counts that probes have not learned an image, in bits: at 2 the hardest image
    may be a quarter as rare by its confidence as the easiest. More serves long trainings, less
    short ones."""
    ood_frac: float = 0.2
    """Share of the pool that counts as odd: kept only where nothing else is left of a class.
    Without BatchNorm in the teacher none does."""
    balance: Balance = "quota_with_floor"
    weights: Weighing = "soft_prior"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.hardness_weight <= ODD / 2:
            raise ValueError(f"hardness_weight={self.hardness_weight}: 0 to {ODD / 2:.0f} bits")
        if not 0 <= self.ood_frac < 1:
            raise ValueError(f"ood_frac={self.ood_frac}: a share of the pool, 0 to 1")


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Blocks of {"score"}, float32 [n]."""
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
