"""The exact cut: its interval narrows, groups give their best rows, and streams are merged."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.selection import radix
from pipeline.selection.candidates import Buckets, Candidates, ScanSizes, sample_scores
from tests.support.columns import pool_of

SIZES = ScanSizes(table_cells=4, min_buckets=4, digit_bits=2, chunk_rows=7)


@given(st.sets(st.integers(0, 60)), st.integers(1, 9))
def test_a_merge_gives_the_sorted_union(rows: set[int], num_rows: int) -> None:
    streamed = np.array(sorted(row for row in rows if row % 3), np.int64)
    others = np.array(sorted(row for row in rows if not row % 3), np.int64)
    pieces = list(radix.merge(io.BytesIO(streamed.tobytes()), others, num_rows))
    np.testing.assert_array_equal(np.concatenate(pieces), sorted(rows))


def test_each_group_gives_its_best_rows_with_ties_by_key_hash(tmp_path: Path) -> None:
    score = np.array([3, 1, 2, 2, 5, 4], np.float32)
    group = np.array([0, 0, 0, 0, 1, 1], np.int32)
    key_hash = np.array([0, 1, 9, 4, 2, 3])
    pool = pool_of(tmp_path, 2, score=score, key_hash=key_hash)
    chosen = radix.best_of_groups(pool, np.array([2, 1]), np.arange(6), group, score)
    assert chosen.tolist() == [0, 3, 4]
    assert radix.best_of_groups(pool, np.array([1]), np.zeros(0, np.int64), group, score).size == 0


def test_a_scan_narrows_the_interval_of_the_cut(tmp_path: Path) -> None:
    score = np.random.default_rng(0).normal(size=200).astype(np.float32)
    columns = {"label": np.zeros(200), "reason": np.zeros(200), "key_hash": np.arange(200)}
    pool = pool_of(tmp_path, 1, score=score, **columns)
    candidates = Candidates(pool, "pool", sizes=SIZES)
    buckets = Buckets(sample_scores(pool), 1, SIZES)
    table, reasons = radix.count_buckets(candidates, buckets)
    assert table.sum() == 200
    assert not any(reasons.values())
    cut = radix.CutInterval(table, np.array([50]), buckets)
    before = cut.num_unresolved
    assert before < 200
    while cut.num_unresolved:
        radix.narrow(candidates, cut)
        assert cut.num_unresolved <= before
        before = cut.num_unresolved
    histogram = radix.write_rows(candidates, cut, 50, tmp_path / "out" / "rows.npy")
    rows = np.load(tmp_path / "out" / "rows.npy", allow_pickle=False)
    np.testing.assert_array_equal(rows, np.sort(np.argsort(-score)[:50]))
    assert histogram.tolist() == [50]
