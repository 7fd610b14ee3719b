"""ODSD's adaptive prototype sampling: confident, central in its class, mindful of rare classes.

Paper: Sampling to Distill (arXiv 2307.16601). The text of the selection could not be read: what
follows is in its spirit (REC .45-.75), and what is marked OURS is measured, not the paper's.
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
    """S = norm(log-odds) - outlier_weight norm(outlier) + density_weight norm(density)."""

    prototypes: Literal["classifier_row", "kmeans"] = "classifier_row"
    """classifier_row (OURS) cannot be captured by clusters of junk; kmeans is REC .6."""
    num_prototypes: int = 4
    """Prototypes per class for kmeans."""
    outlier_weight: float = 1.0
    density: density.Kind = "scarcity"
    density_weight: float = 0.1
    """OURS: at weight 1 the term admits junk into rare classes."""
    norm: Norm = "rank"
    balance: Balance = "quota_with_floor"
    weights: Weighing = "class_prior"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_prototypes < 1:
            raise ValueError(f"num_prototypes={self.num_prototypes}: at least 1")


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Blocks of {"score"}, float32 [n]; with kmeans the column "outlier_kmeans" comes first."""
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
    """d = g(y) of some rows, float32 [n], from the raw columns (pipeline/scores/density.py)."""
    if kind == "none":
        return np.zeros(rows.stop - rows.start, np.float32)
    if kind == "population":
        return np.float32(1) - pool.column("scarcity")[rows]
    return pool.column(kind)[rows]
