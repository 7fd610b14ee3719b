"""Control: keep N images drawn at random, the same images for the same seed.

Command: make select CORPUS=... METHOD=random N=50000
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexes.splitmix import GAMMA, Uint64, splitmix64
from pipeline.method import Choice, Scored
from pipeline.pool import Pool


@dataclass(frozen=True, kw_only=True)
class Config(Choice):
    """The control draws by seed, and every image has weight 1."""


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Yield blocks of {"score"}, float32 [n]: a hash of (seed, key) as a number in [0, 1)."""
    for block in pool.blocks:
        yield block, {"score": uniform(block.columns("key_hash")[0], seed)}


def uniform(key_hash_N: Uint64, seed: int) -> npt.NDArray[np.float32]:
    """Return a number in [0, 1) per key hash uint64 [N], float32 [N]: splitmix64 of seed and key.

    The result is a pure function of (seed, key) (OURS).

    Example:
        >>> round(float(uniform(np.array([7], np.uint64), seed=0)[0]), 4)
        0.073
    """
    with np.errstate(over="ignore"):
        bits = splitmix64(key_hash_N + np.uint64((seed - 1) % 2**64) * np.uint64(GAMMA))
    return ((bits >> np.uint64(40)).astype(np.float64) / (1 << 24)).astype(np.float32)
