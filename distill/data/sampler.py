"""Which rows train, how much each weighs, and in which order they come: functions of a step number.

N training rows, B images of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from indexes.splitmix import Uint64, splitmix64

HELDOUT_FRAC, MAX_HELDOUT = 0.02, 2000

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Which rows train, [N], and which only measure agreement with the teacher, [M]."""

    train: Rows
    heldout: Rows


def split_heldout(key_hash: Uint64) -> Split:
    """Hold out 2 % of the rows (1 to 2,000) by key hash [N], the same ones in every run.

    Raises ValueError for fewer than two rows.
    """
    num = len(key_hash)
    if num < 2:
        raise ValueError(
            f"the shards hold {num} images, but training needs at least 2: select more with -n"
        )
    count = min(max(round(HELDOUT_FRAC * num), 1), MAX_HELDOUT)
    order = np.argsort(splitmix64(key_hash), kind="stable")
    return Split(np.sort(order[count:]), np.sort(order[:count]))


def normalized_weights(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scale the weights [N] of the training rows to mean 1.

    Raises ValueError unless all are finite and >= 0, and one is above 0.

    Example:
        >>> normalized_weights(np.array([1.0, 3.0], np.float32)).tolist()
        [0.5, 1.5]
    """
    total = float(weights.sum(dtype=np.float64))
    if not np.isfinite(weights).all() or (weights < 0).any() or total <= 0:
        raise ValueError("the shards' weights must be finite, not negative, and not all zero")
    return (weights * (len(weights) / total)).astype(np.float32)


class StepSampler(Protocol):
    """The images of each step, `per_step` of them."""

    per_step: int

    def indices(self, step: int) -> tuple[Rows, Rows]:
        """(index into the training rows [B], epoch [B]) of a step."""


class EpochSampler:
    """An endless stream of shuffled epochs over N rows, cut into steps of B images.

    Row number and epoch of an image are functions of (seed, step, position in the batch) alone, so
    that a training is resumed by its step number; the tail of an epoch goes into the next one.
    """

    def __init__(self, num_rows: int, per_step: int, seed: int) -> None:
        self.num_rows, self.per_step, self.seed = num_rows, per_step, seed
        self._shuffled: dict[int, Rows] = {}

    def indices(self, step: int) -> tuple[Rows, Rows]:
        """See StepSampler."""
        position = np.arange(step * self.per_step, (step + 1) * self.per_step)
        epoch, within = np.divmod(position, self.num_rows)
        index = np.empty_like(position)
        for number in np.unique(epoch).tolist():
            in_epoch = epoch == number
            index[in_epoch] = self._epoch(number)[within[in_epoch]]
        return index, epoch

    def _epoch(self, epoch: int) -> Rows:
        if epoch not in self._shuffled:
            self._shuffled = {e: o for e, o in self._shuffled.items() if e == epoch - 1}
            generator = np.random.default_rng([self.seed % 2**63, epoch])
            self._shuffled[epoch] = generator.permutation(self.num_rows)
        return self._shuffled[epoch]


class MixedSampler:
    """Two samplers side by side: each step has a fixed number of images of each set.

    The rows of the second set follow those of the first; in a step both sets are spread evenly, so
    that any piece of it holds both.
    """

    def __init__(self, first: EpochSampler, second: EpochSampler) -> None:
        self.first, self.second = first, second
        self.per_step = first.per_step + second.per_step
        positions = [(np.arange(n) + 0.5) / n for n in (first.per_step, second.per_step)]
        self._spread = np.argsort(np.concatenate(positions), kind="stable")

    def indices(self, step: int) -> tuple[Rows, Rows]:
        """See StepSampler."""
        index, epoch = self.first.indices(step)
        other, other_epoch = self.second.indices(step)
        return (
            np.concatenate([index, other + self.first.num_rows])[self._spread],
            np.concatenate([epoch, other_epoch])[self._spread],
        )


class RankSampler:
    """The rows of each step that one process takes: all processes together see the whole step.

    Shards of any number and size are even so: what is shared out is the stream of rows.
    """

    def __init__(self, whole: StepSampler, rank: int, num_ranks: int) -> None:
        """`per_step` stays that of the whole."""
        self.whole, self.rank, self.num_ranks = whole, rank, num_ranks
        self.per_step = whole.per_step

    def indices(self, step: int) -> tuple[Rows, Rows]:
        """See StepSampler."""
        index, epoch = self.whole.indices(step)
        first, last = (len(index) * rank // self.num_ranks for rank in (self.rank, self.rank + 1))
        return index[first:last], epoch[first:last]
