"""The Pareto front: the nets that no other one beats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def front(gains: Sequence[float], costs: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Which of N lie on the front, [N]: none other gains at least as much for at most the cost,
    and is better in one of the two. Equals stay or go together. N log N.
    """
    order = sorted(range(len(gains)), key=lambda one: (costs[one], -gains[one]))
    found = np.zeros(len(gains), np.bool_)
    last = None
    for one in order:
        if last is None or gains[one] > gains[last] or _same(one, last, gains, costs):
            found[one], last = True, one
    return found


def _same(one: int, other: int, gains: Sequence[float], costs: Sequence[float]) -> bool:
    return gains[one] == gains[other] and costs[one] == costs[other]
