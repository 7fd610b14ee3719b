"""KD3's class-adaptive threshold as a static selection: rare classes get a lower threshold.

Paper: Knowledge Distillation between Different Distributions (arXiv 2307.11469, ICCV 2023), with
its released code (SOURCE): keep an image iff c > tau b(y) / (2 - b(y)), where c is its largest
probability, b(k) the number of images of class k over that of the largest class, and tau = .95.
KD3 scores a mix of teacher and student again in every epoch. Here alpha = 1: the teacher alone,
once (OURS). KD3 keeps all images that pass and has no N; how N is filled is OURS, see `fill`.
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
    """KD3's thresholds are its only balance: one global ranking, and every image has weight 1."""

    tau: float = 0.95
    """The threshold of the largest class, as a probability."""
    fill: Literal["random", "margin"] = "random"
    """The choice if more than N images pass: random, as KD3's batches are drawn, or margin, those
    farthest above their threshold in log-odds. If fewer pass, those that miss it by least follow.
    """
    threshold_floor: float = 0.0
    """The least threshold, as a multiple of 1 / C. At 0 almost every image of a very rare class
    passes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.tau < 1:
            raise ValueError(f"tau={self.tau}: must be a probability above 0 and below 1")
        if self.threshold_floor < 0:
            raise ValueError(f"threshold_floor={self.threshold_floor}: must be at least 0")


def threshold(counts_C: Array, tau: float, floor: float = 0.0) -> Array:
    """Return T(k) = tau b / (2 - b) as log-odds, float32 [C]; -inf for a class without images.

    counts_C: images per class [C]. floor: the least threshold, as a multiple of 1 / C; as a
    probability it is at most tau. SOURCE, but for the floor (OURS).

    Example:
        >>> threshold(np.array([100, 0]), tau=0.5).tolist()
        [0.0, -inf]
    """
    share = counts_C / max(int(counts_C.max(initial=0)), 1)
    probability = np.maximum(tau * share / (2 - share), min(floor / len(counts_C), tau))
    with np.errstate(divide="ignore"):
        return (np.log(probability) - np.log1p(-probability)).astype(np.float32)


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Yield blocks of {"score"}, float32 [n]: images that pass score higher than all others."""
    of_class = threshold(pool.class_counts(), config.tau, config.threshold_floor)
    for block in pool.blocks:
        label, log_odds, key_hash = block.columns("label", "log_odds", "key_hash")
        margin = log_odds - of_class[label]
        yield block, {"score": filled(margin, margin > 0, key_hash, seed, config.fill)}


def filled(margin_N: Array, passes_N: Array, key_hash_N: Array, seed: int, fill: str) -> Array:
    """Return a score float32 [N] that ranks the images that pass first (OURS).

    With `fill` "margin" it is the margin in log-odds, which does not saturate: the N best are those
    that pass if all thresholds are raised or lowered by one amount. With "random" it is a number
    from 1 to 2 for images that pass, a function of seed and key, and the negative margin otherwise.
    """
    if fill == "margin":
        return margin_N.astype(np.float32)
    drawn = np.float32(1) + uniform(key_hash_N, seed)
    return np.where(passes_N, drawn, np.minimum(margin_N, 0)).astype(np.float32)
