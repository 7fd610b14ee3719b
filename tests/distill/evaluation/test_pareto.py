"""The Pareto front, compared with a double loop."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distill.evaluation.pareto import front

# There are few values, so ties in one or both figures are common.
PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20)


def slow(gains: list[int], costs: list[int]) -> list[bool]:
    found = []
    for gain, cost in zip(gains, costs, strict=True):
        beaten = False
        for other_gain, other_cost in zip(gains, costs, strict=True):
            as_good = other_gain >= gain and other_cost <= cost
            beaten |= as_good and (other_gain, other_cost) != (gain, cost)
        found.append(not beaten)
    return found


@given(PAIRS)
def test_the_front_equals_a_double_loop(pairs: list[tuple[int, int]]) -> None:
    gains, costs = [one for one, _ in pairs], [other for _, other in pairs]
    found = front(gains, costs)
    assert found.dtype == np.bool_
    assert list(found) == slow(gains, costs)
    assert found.any() or not pairs


def test_the_front_matches_known_fronts() -> None:
    assert list(front([0.7, 0.8, 0.75, 0.9], [10, 20, 30, 40])) == [True, True, False, True]
    assert list(front([0.5, 0.5], [1, 1])) == [True, True]
    assert list(front([0.5, 0.5], [2, 1])) == [False, True]
    assert list(front([0.4, 0.5], [1, 1])) == [False, True]
