"""A combination of one's own: raw columns by weight, each as its rank in the pool.

Command: make select CORPUS=... N=50000 ARGS="--score-set 'log_odds=1 outlier=-1 bn=-0.5'"
which is METHOD=mix SET='terms=log_odds=1,outlier=-1,bn=-0.5'. OURS.
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
    """score = sum of weight x norm(column) over the terms."""

    terms: str = "log_odds=1"
    """column=weight, comma-separated; a negative weight prefers small values."""
    norm: Norm = "rank"

    def __post_init__(self) -> None:
        super().__post_init__()
        parse(self.terms)


def parse(terms: str) -> dict[str, float]:
    """{column: weight} of `column=weight` terms, separated by commas or spaces.

    Raises ValueError for a column that no pool has (with the nearest), one named twice, or a
    weight that is no finite number.
    """
    weights: dict[str, float] = {}
    for term in terms.replace(",", " ").split():
        name, _, text = term.partition("=")
        if name not in COLUMNS:
            known = ", ".join(COLUMNS)
            raise ValueError(
                f"no column {name!r}.{nearest(name, list(COLUMNS))} There are: {known}"
            )
        if name in weights:
            raise ValueError(f"column {name!r} stands twice in {terms!r}")
        try:
            weights[name] = float(text)
        except ValueError:
            weights[name] = math.nan
        if not math.isfinite(weights[name]):
            raise ValueError(f"{term!r}: write column=weight, such as log_odds=1 or outlier=-0.5")
    if not weights:
        raise ValueError("no terms: write column=weight, such as log_odds=1 outlier=-0.5")
    return weights


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Blocks of {"score"}, float32 [n]. ValueError for a column that this pool lacks."""
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
