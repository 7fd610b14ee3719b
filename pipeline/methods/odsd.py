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

from indexes.embeddings import Block
from pipeline.method import Choice, Scored
from pipeline.pool import Pool
from pipeline.scores import density, normalise, outlier
from pipeline.selection import Balance
from pipeline.weights import Weighing

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
    norm: normalise.Norm = "rank"
    balance: Balance = "quota_with_floor"
    weights: Weighing = "class_prior"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_prototypes < 1:
            raise ValueError(f"num_prototypes={self.num_prototypes}: at least 1")


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Blocks of {"score", "density"}, float32 [n] each; the column "outlier" is written first."""
    if config.prototypes == "kmeans":
        prototypes = outlier.kmeans(pool, config.num_prototypes, seed)
    else:
        prototypes = outlier.classifier_rows(pool)
    pool.fill(outlier.score(pool, prototypes))
    counts = pool.class_counts()
    sums = np.zeros(len(counts))
    if config.density == "compactness":
        for block in pool.blocks:
            (label,) = block.columns("label")
            sums += np.bincount(label, _rows(pool, "outlier", block), len(counts))
    of_class = density.per_class(config.density, counts, sums / np.maximum(counts, 1))
    confidence = normalise.Scale(pool.column("log_odds"), config.norm, seed)
    distance = normalise.Scale(pool.column("outlier"), config.norm, seed)
    for block in pool.blocks:
        label, log_odds = block.columns("label", "log_odds")
        crowding, far = of_class[label], _rows(pool, "outlier", block)
        total = confidence(log_odds) - config.outlier_weight * distance(far)
        total += config.density_weight * crowding
        yield block, {"score": total, "density": crowding}


def _rows(pool: Pool, name: str, block: Block) -> Array:
    return pool.column(name)[block.start : block.stop]
