"""Scores become integer codes, and buckets have about equally many rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pool import sortable_code
from pipeline.selection.candidates import Buckets, ScanSizes, score_of


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=40))
def test_codes_have_the_order_of_the_scores(values: list[float]) -> None:
    score = np.array(values, np.float32)
    code = sortable_code(score)
    for row in range(len(score)):
        np.testing.assert_array_equal(code > code[row], score > score[row])
        np.testing.assert_array_equal(code == code[row], score == score[row])
    np.testing.assert_array_equal(score_of(code.astype(np.uint64)), score)


def test_buckets_are_monotone_and_contain_their_codes() -> None:
    score = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    buckets = Buckets(score, 10, ScanSizes(table_cells=640))
    assert buckets.num == 64
    bucket, code = buckets(score).astype(int) - 1, sortable_code(score).astype(np.uint64)
    assert (np.diff(bucket[np.argsort(score, kind="stable")]) >= 0).all()
    assert (buckets.low[bucket] <= code).all()
    assert (code <= buckets.high[bucket]).all()
    assert np.bincount(bucket).max() < 3 * len(score) / buckets.num
