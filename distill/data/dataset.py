"""The images of a training: rows of one shard set, or of several sets in sequence.

N rows in total. Labels are read neither here nor anywhere else in distillation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from distill.data.sampler import Rows, normalized_weights
from indexes.shards.reader import Shards
from indexes.splitmix import Uint64


class ShardDataset:
    """The training images: keys, weights and bytes. `sets` are pairs of shards and their rows."""

    def __init__(self, sets: Sequence[tuple[Shards, Rows]]) -> None:
        self.sets = list(sets)
        self._ends = np.cumsum([len(rows) for _, rows in self.sets])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def key_hash(self) -> Uint64:
        """The hashes of the keys, [N] uint64."""
        return np.concatenate([shards.columns["key_hash"][rows] for shards, rows in self.sets])

    @property
    def weights(self) -> npt.NDArray[np.float32]:
        """The weights [N], with mean 1 within each set.

        Raises ValueError unless all are finite and >= 0, and each set has one above 0.
        """
        return np.concatenate(
            [normalized_weights(shards.columns["weight"][rows]) for shards, rows in self.sets]
        )

    def read(self, index: int) -> tuple[bytes, str]:
        """Return the bytes of an image, and its name for error messages."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        shards, rows = self.sets[number]
        row = int(rows[index - self._ends[number]])  # counted from the end of the set
        return shards.read(row), f"{shards.directory}: {shards.keys[row]}"
