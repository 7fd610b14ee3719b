"""ODSD-style sampling: confident images near the prototype of their class, rare classes raised.

Paper: Sampling to Distill (arXiv 2307.16601). The paper's text on selection was not available. The
method is reconstructed from its description (REC .45-.75); parts marked OURS are measured here and
not from the paper.
Command: make select CORPUS=... METHOD=odsd N=50000
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.method import Choice, Scored
from pipeline.pool import Pool
from pipeline.scores import density, outlier
from pipeline.selection.scale import Norm, Scale
from pipeline.selection.top_n import Balance
from pipeline.weighting.weights import Weighing

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Config(Choice):
    """The score is norm(log-odds) - outlier_weight norm(outlier) + density_weight density."""

    prototypes: Literal["classifier_row", "kmeans"] = "classifier_row"
    """The prototypes of a class: classifier_row (OURS), on which clusters of irrelevant images have
    no influence, or kmeans (REC .6)."""
    num_prototypes: int = 4
    """Prototypes per class, for kmeans."""
    outlier_weight: float = 1.0
    """Weight of the distance to the nearest prototype of the class."""
    density: density.Kind = "scarcity"
    """The class density: scarcity raises rare classes, population raises frequent classes, and
    compactness raises classes whose images lie near their classifier row. none leaves it out."""
    density_weight: float = 0.1
    """Weight of the class density (OURS). At weight 1 it admits irrelevant images into rare
    classes."""
    norm: Norm = "rank"
    """The scale of log-odds and distance: rank, neg_log2_rank, minmax or max."""
    balance: Balance = "quota_with_floor"
    weights: Weighing = "class_prior"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_prototypes < 1:
            raise ValueError(f"num_prototypes={self.num_prototypes}: must be at least 1")


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Yield blocks of {"score"}, float32 [n]; kmeans first fills the column "outlier_kmeans"."""
    far = "outlier"
    if config.prototypes == "kmeans":
        pool.fill(
            outlier.kmeans_column(
                pool, outlier.kmeans_prototypes(pool, config.num_prototypes, seed)
            )
        )
        far = "outlier_kmeans"
    confidence = Scale(pool, "log_odds", config.norm)
    distance = Scale(pool, far, config.norm)
    for block in pool.blocks:
        rows = slice(block.start, block.stop)
        total = confidence(block.columns("log_odds")[0])
        total -= config.outlier_weight * distance(pool.column(far)[rows])
        total += config.density_weight * crowding(pool, config.density, rows)
        yield block, {"score": total}


def crowding(pool: Pool, kind: density.Kind, rows: slice) -> Array:
    """Return the class density d = g(y) of a slice of rows, float32 [N], from the raw columns.

    pipeline/scores/density.py defines it (ODSD, REC .45).
    """
    if kind == "none":
        return np.zeros(rows.stop - rows.start, np.float32)
    if kind == "population":
        return np.float32(1) - pool.column("scarcity")[rows]
    return pool.column(kind)[rows]
