"""A selection method of your own in one file: confident images that have no near neighbors.

Command: winnow select --corpus demo --method examples/own_selection_method.py --set isolation=0.5
From Python: python examples/own_selection_method.py CORPUS
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from pipeline import Pool, SelectConfig, select
from pipeline.method import Choice, Scored
from pipeline.selection.scale import Scale
from pipeline.selection.top_n import Balance


@dataclass(frozen=True, kw_only=True)
class Config(Choice):
    """The score is the rank of log_odds plus isolation times the rank of knn_distance."""

    isolation: float = 0.5
    """Weight of the distance to the tenth nearest neighbor."""
    balance: Balance = "quota"


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Yield {"score"}, float32 [n], for each block. The largest scores of each class are kept."""
    confidence = Scale(pool, "log_odds", "rank")
    isolation = Scale(pool, "knn_distance", "rank")
    for block in pool.blocks:
        rows = slice(block.start, block.stop)
        total = confidence(pool.column("log_odds")[rows])
        total += config.isolation * isolation(pool.column("knn_distance")[rows])
        yield block, {"score": total}


if __name__ == "__main__":
    shards = select(SelectConfig(corpus=sys.argv[1], method=__file__, n=1_000))
    print(shards.directory, shards.funnel)
