"""KD3's class-adaptive threshold as a static selection: rarer classes pass more easily.

Paper: Knowledge Distillation between Different Distributions (arXiv 2307.11469, ICCV 2023); its
code was read (SOURCE): keep iff c > tau b(y) / (2 - b(y)), c = max softmax, b(k) = images of class
k / those of the largest class, tau = .95. KD3 scores a mix of teacher and student anew in every
epoch; here alpha = 1, the teacher alone, once (OURS). KD3 keeps all that pass and knows no N: what
fills N is OURS, see `fill`.
Command: make select CORPUS=... METHOD=kd3 N=50000
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.method import Choice, Scored
from pipeline.methods.random import uniform
from pipeline.pool import Pool

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Config(Choice):
    """The threshold is the only balance: one global ranking, every image weighs the same."""

    tau: float = 0.95
    fill: Literal["random", "margin"] = "random"
    """When more than N pass. random: any N of them, as KD3's batches are drawn. margin: those
    farthest above the threshold of their class, in log-odds, which do not saturate: that is the
    N images that pass when all thresholds are raised by one amount. When fewer than N pass both
    go on with those that miss it by least (all thresholds are lowered by one amount)."""
    threshold_floor: float = 0.0
    """No threshold below this many times 1 / C; at 0 a class of few images passes whole."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.tau < 1:
            raise ValueError(f"tau={self.tau}: a probability, above 0 and below 1")
        if self.threshold_floor < 0:
            raise ValueError(f"threshold_floor={self.threshold_floor}: at least 0")


def threshold(counts_C: Array, tau: float, floor: float = 0.0) -> Array:
    """T(k) = tau b / (2 - b) as log-odds, float32 [C]; -inf for a class without images.

    floor: the least threshold, as a multiple of 1 / C (a probability, kept below tau).
    """
    share = counts_C / max(int(counts_C.max(initial=0)), 1)
    probability = np.maximum(tau * share / (2 - share), min(floor / len(counts_C), tau))
    with np.errstate(divide="ignore"):
        return (np.log(probability) - np.log1p(-probability)).astype(np.float32)


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Blocks of {"score"}: above that of the others for what passes, float32 [n]."""
    of_class = threshold(pool.class_counts(), config.tau, config.threshold_floor)
    for block in pool.blocks:
        label, log_odds, key_hash = block.columns("label", "log_odds", "key_hash")
        margin = log_odds - of_class[label]
        yield block, {"score": filled(margin, margin > 0, key_hash, seed, config.fill)}


def filled(margin_N: Array, passes_N: Array, key_hash_N: Array, seed: int, fill: str) -> Array:
    """A score that fills N from what passes first, float32 [n].

    margin: the margin itself. random: 1 to 2, a function of seed and key, for all that pass.
    """
    if fill == "margin":
        return margin_N.astype(np.float32)
    drawn = np.float32(1) + uniform(key_hash_N, seed)
    return np.where(passes_N, drawn, np.minimum(margin_N, 0)).astype(np.float32)
