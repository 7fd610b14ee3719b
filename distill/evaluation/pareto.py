"""The Pareto front: the nets that no other net beats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def front(gains: Sequence[float], costs: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Return a mask [N] of the nets on the front, given their gains [N] and costs [N].

    A net is on the front unless another net gains at least as much for at most the same cost and is
    better in one of the two. Nets with the same gain and cost get the same mark. The time is
    O(N log N).

    Example:
        >>> front([0.7, 0.8, 0.75], [10, 20, 30]).tolist()
        [True, True, False]
    """
    order = sorted(range(len(gains)), key=lambda net: (costs[net], -gains[net]))
    on_front_N = np.zeros(len(gains), np.bool_)
    last = None
    for net in order:
        gain, cost = gains[net], costs[net]
        if last is None or gain > last[0] or (gain, cost) == last:
            on_front_N[net], last = True, (gain, cost)
    return on_front_N
