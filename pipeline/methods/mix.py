"""A weighted sum of raw columns of your choice, each scaled to its rank in the pool.

Command: make select CORPUS=... N=50000 ARGS="--score-set 'log_odds=1 outlier=-1 bn_distance=-0.5'"
which is METHOD=mix SET='terms=log_odds=1,outlier=-1,bn_distance=-0.5'. OURS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from indexes.plugins import nearest
from pipeline.method import Choice, Scored
from pipeline.pool import Pool
from pipeline.scores.columns import COLUMNS
from pipeline.selection.scale import Norm, Scale


@dataclass(frozen=True, kw_only=True)
class Config(Choice):
    """The score is the sum of weight x norm(column) over the terms."""

    terms: str = "log_odds=1"
    """Terms column=weight, separated by commas. A negative weight prefers small values."""
    norm: Norm = "rank"
    """The scale of each column: rank (0-1), neg_log2_rank (bits), minmax (0-1) or max (divided by
    the largest magnitude)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parse(self.terms)


def parse(terms: str) -> dict[str, float]:
    """Return {column: weight} of `column=weight` terms that are separated by commas or spaces.

    Raises ValueError for a column that no pool has, a column named twice, a weight that is not a
    finite number, or no terms.

    Example:
        >>> parse("log_odds=1 outlier=-0.5")
        {'log_odds': 1.0, 'outlier': -0.5}
    """
    weights: dict[str, float] = {}
    for term in terms.replace(",", " ").split():
        name, _, text = term.partition("=")
        if name not in COLUMNS:
            known = ", ".join(COLUMNS)
            raise ValueError(
                f"no column {name!r}.{nearest(name, list(COLUMNS))} The columns are: {known}"
            )
        if name in weights:
            raise ValueError(f"column {name!r} is named twice in {terms!r}: name it once")
        try:
            weights[name] = float(text)
        except ValueError:
            weights[name] = math.nan
        if not math.isfinite(weights[name]):
            raise ValueError(
                f"{term!r} has no finite weight: write column=weight, such as outlier=-0.5"
            )
    if not weights:
        raise ValueError("no terms: write column=weight, such as log_odds=1 outlier=-0.5")
    return weights


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Yield blocks of {"score"}, float32 [n]. Raises ValueError for a column the pool lacks."""
    weights = parse(config.terms)
    for name in weights:
        if not pool.has(name):
            raise ValueError(f"this pool has no column {name!r} ({COLUMNS[name]})")
    scales = {name: Scale(pool, name, config.norm) for name in weights}
    for block in pool.blocks:
        total = np.zeros(len(block), np.float32)
        for name, weight in weights.items():
            column = pool.column(name)[block.start : block.stop]
            total += np.float32(weight) * scales[name](column)
        yield block, {"score": total}
