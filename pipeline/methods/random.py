"""Control: N images drawn at random, the same ones for the same seed.

Command: make select CORPUS=... METHOD=random N=50000
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.method import Choice, Scored
from pipeline.pool import Pool

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Config(Choice):
    """A seeded draw, every image weighs the same."""


def score(pool: Pool, config: Config, seed: int) -> Scored:
    """Blocks of {"score"}: a hash of (seed, key) as a number in [0, 1), float32 [n]."""
    for block in pool.blocks:
        yield block, {"score": uniform(block.columns("key_hash")[0], seed)}


def uniform(key_hash_N: Array, seed: int) -> Array:
    """A number in [0, 1) per key, float32 [n], a pure function of (seed, key) (splitmix64)."""
    with np.errstate(over="ignore"):
        bits = key_hash_N + np.uint64(seed % (1 << 64)) * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
    return ((bits >> np.uint64(40)).astype(np.float64) / (1 << 24)).astype(np.float32)
