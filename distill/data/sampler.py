"""The training rows, their weights and their order.

The rows of a step depend only on the seed and the step number. N training rows, B images of a step.
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
    """The rows that train [N], and the rows that only measure agreement with the teacher [M]."""

    train: Rows
    heldout: Rows


def split_heldout(key_hash: Uint64) -> Split:
    """Hold out 2 % of the rows (1 to 2,000) by key hash [N], the same ones in every run.

    Raises ValueError if there are fewer than two rows.
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

    Raises ValueError unless all are finite and >= 0, and at least one is above 0.

    Example:
        >>> normalized_weights(np.array([1.0, 3.0], np.float32)).tolist()
        [0.5, 1.5]
    """
    total = float(weights.sum(dtype=np.float64))
    if not np.isfinite(weights).all() or (weights < 0).any() or total <= 0:
        raise ValueError("the shards' weights must be finite, not negative, and not all zero")
    return (weights * (len(weights) / total)).astype(np.float32)


class StepSampler(Protocol):
    """An order of the training images; `per_step` is the number of images in a step."""

    per_step: int

    def indices(self, step: int) -> tuple[Rows, Rows]:
        """Return (index into the training rows [B], epoch [B]) of a step."""


class EpochSampler:
    """An endless stream of shuffled epochs over N rows, cut into steps of B images.

    The row and the epoch of an image are functions of (seed, step, position in the batch) alone, so
    a training resumes from its step number. A step may hold the end of one epoch and the beginning
    of the next.
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

    The rows of the second set follow those of the first. Both sets are spread evenly over a step,
    so that any piece of it holds both.
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
    """The rows of each step that one process takes; all processes together take all its rows.

    The stream of rows is divided, not the shards. The division is therefore even for shards of any
    number and size.
    """

    def __init__(self, sampler: StepSampler, rank: int, num_ranks: int) -> None:
        """`per_step` stays that of `sampler`: the images of all processes."""
        self.sampler, self.rank, self.num_ranks = sampler, rank, num_ranks
        self.per_step = sampler.per_step

    def indices(self, step: int) -> tuple[Rows, Rows]:
        """See StepSampler."""
        index, epoch = self.sampler.indices(step)
        first, last = (len(index) * rank // self.num_ranks for rank in (self.rank, self.rank + 1))
        return index[first:last], epoch[first:last]
