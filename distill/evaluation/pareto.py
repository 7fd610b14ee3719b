"""The Pareto front: the nets that no other one beats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def front(gains: Sequence[float], costs: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Which of N lie on the front, [N]: none other gains at least as much for at most the cost,
    and is better in one of the two. Equals stay or go together. N log N.
    """
    order = sorted(range(len(gains)), key=lambda net: (costs[net], -gains[net]))
    on_front_N = np.zeros(len(gains), np.bool_)
    last = None
    for net in order:
        gain, cost = gains[net], costs[net]
        if last is None or gain > last[0] or (gain, cost) == last:
            on_front_N[net], last = True, (gain, cost)
    return on_front_N
