"""The Pareto front, compared with a double loop."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distill.evaluation.pareto import front

# There are few values, so ties in the gain, the cost or both are common.
PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20)


def slow(gains: list[int], costs: list[int]) -> list[bool]:
    marks = []
    for gain, cost in zip(gains, costs, strict=True):
        beaten = False
        for other_gain, other_cost in zip(gains, costs, strict=True):
            as_good = other_gain >= gain and other_cost <= cost
            beaten |= as_good and (other_gain, other_cost) != (gain, cost)
        marks.append(not beaten)
    return marks


@given(PAIRS)
def test_the_front_equals_a_double_loop(pairs: list[tuple[int, int]]) -> None:
    gains, costs = [gain for gain, _ in pairs], [cost for _, cost in pairs]
    marks = front(gains, costs)
    assert marks.dtype == np.bool_
    assert list(marks) == slow(gains, costs)
    assert marks.any() or not pairs


def test_the_front_matches_known_fronts() -> None:
    assert list(front([0.7, 0.8, 0.75, 0.9], [10, 20, 30, 40])) == [True, True, False, True]
    assert list(front([0.5, 0.5], [1, 1])) == [True, True]
    assert list(front([0.5, 0.5], [2, 1])) == [False, True]
    assert list(front([0.4, 0.5], [1, 1])) == [False, True]
