"""Autotuning probes the fewest lists that reach the target recall."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes.vectors.autotune import hit_frac, least_sufficient
from tests.support import vectors
from tests.support.vectors import clustered, nearest, recall

ROWS = clustered(6000)
make_index = partial(vectors.make_index, exact_rows=100)


def test_an_index_reaches_the_target_recall(tmp_path: Path) -> None:
    low = make_index(tmp_path / "low", ROWS, recall=0.5)
    high = make_index(tmp_path / "high", ROWS, recall=0.99)
    assert low.card["nprobe"] < high.card["nprobe"]
    assert high.card["recall_at_10"] >= 0.99
    assert make_index(tmp_path / "near", ROWS, close=0.95).card["recall_close"] >= 0.999
    rows = high.search(ROWS[::7], 10)[1]
    assert recall(rows, nearest(ROWS[::7], ROWS, 10)[1]) > 0.97


@given(st.floats(0, 1), st.integers(1, 300))
@settings(max_examples=50, deadline=None)
def test_the_smallest_number_of_lists_is_found(target: float, high: int) -> None:
    num_lists, value = least_sufficient(lambda n: n / high, target, 1, high)
    assert value == num_lists / high
    assert value >= target
    assert num_lists <= np.ceil(target * high) * 17 / 16 + 1


def test_the_hit_share_of_an_empty_set_is_one() -> None:
    hits = np.array([[True, False]])
    assert hit_frac(hits, np.array([[True, True]])) == 0.5
    assert hit_frac(hits, np.array([[False, False]])) == 1
