"""Winnow's own: the surest images of every class, without those that look unlike the lost data.

Confidence within class quotas buys purity, but the surest images teach much the same: of two about
as sure that one is better which small probes (pipeline/probe.py) could not learn from the surest.
The teacher's middle BatchNorms know what the lost images looked like (symbols, game tiles and
drawings are far off, however sure the teacher is of them); weights then make the teacher's softened
answers, which a student learns from, even over the classes. OURS; docs/LOG.md has the ablation.
Command: make select CORPUS=... N=50000
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.method import Choice, Scored
from pipeline.pool import Pool
from pipeline.scores import normalise
from pipeline.selection import Balance
from pipeline.weights import Weighing

ODD = 128.0
"""Halvings that an odd image is put back by: more than any pool has."""


@dataclass(frozen=True, kw_only=True)
class Config(Choice):
    """score = halvings of the pool to the image's log-odds + `hard` x its rank by `unlearnt`, less
    ODD for one of those farthest by `bn`."""

    hard: float = 2.0
    """What it counts that probes have not learnt an image, in halvings: at 2 the hardest image
    may be a quarter as rare by its sureness as the easiest. More serves long trainings, less
    short ones."""
    odd_frac: float = 0.2
    """Share of the pool that counts as odd: kept only where nothing else is left of a class.
    Without BatchNorm in the teacher none does."""
    balance: Balance = "quota_with_floor"
    weights: Weighing = "soft_prior"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.hard <= ODD / 2:
            raise ValueError(f"hard={self.hard}: 0 to {ODD / 2:.0f} halvings")
        if not 0 <= self.odd_frac < 1:
            raise ValueError(f"odd_frac={self.odd_frac}: a share of the pool, 0 to 1")


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Blocks of {"score"}, float32 [n]."""
    sureness = normalise.Scale(pool, "log_odds", "halvings")
    hardness = None
    if config.hard and pool.has("unlearnt"):
        hardness = normalise.Scale(pool, "unlearnt", "rank")
    oddness = normalise.Scale(pool, "bn", "rank") if pool.has("bn") else None
    for block in pool.blocks:
        rows = slice(block.start, block.stop)
        total = sureness(pool.column("log_odds")[rows])
        if hardness is not None:
            total += np.float32(config.hard) * hardness(pool.column("unlearnt")[rows])
        if oddness is not None:
            odd = oddness(pool.column("bn")[rows]) > 1 - config.odd_frac
            total -= np.float32(ODD) * odd
        yield block, {"score": total}
