"""Selection: exact against a sort in memory, quotas that hit N, every drop counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import pool as pool_module
from pipeline import selection
from pipeline.selection import Balance, select, top_rows, water_fill
from tests.pipeline.pools import make_pool

Array = npt.NDArray[Any]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(0, 400))
def test_water_fill_is_level_and_exact(counts: list[int], total: int) -> None:
    quotas = water_fill(counts, total)
    assert quotas.sum() == min(total, sum(counts))
    assert (quotas <= counts).all()
    short = quotas < counts  # a class that could give more has at least what any other has, less 1
    if short.any():
        assert quotas[short].min() >= quotas.max() - 1


def brute_force(group: Array, score: Array, tie: Array, eligible: Array, quotas: Array) -> Array:
    kept: list[int] = []
    for one, quota in enumerate(quotas):
        rows = [row for row in range(len(score)) if group[row] == one and eligible[row]]
        kept += sorted(rows, key=lambda row: (-score[row], tie[row], row))[:quota]
    return np.array(sorted(kept), np.int64)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7))
def test_top_rows_is_a_sort_per_group(seed: int, chunk: int) -> None:
    generator = np.random.default_rng(seed)
    total = int(generator.integers(0, 60))
    group = generator.integers(0, 4, total)
    score = generator.integers(0, 6, total).astype(np.float32)  # many ties
    tie = generator.permutation(total).astype(np.uint64)
    eligible = generator.random(total) < 0.8
    quotas = generator.integers(0, 9, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "chunks", lambda n: pool_module.chunks(n, chunk))
        found = top_rows(
            total, quotas, lambda rows: (eligible[rows], group[rows], score[rows], tie[rows])
        )
    np.testing.assert_array_equal(found, brute_force(group, score, tie, eligible, quotas))


def filled(directory: Path, seed: int = 0, total: int = 200) -> pool_module.Pool:
    generator = np.random.default_rng(seed)
    label = generator.choice(3, total, p=[0.7, 0.25, 0.05])
    log_odds = generator.normal(size=total).astype(np.float32)
    content = np.arange(total)
    content[50:60] = content[0:10]  # ten exact twins
    pool = make_pool(
        directory, label=label, log_odds=log_odds, content=content, blocks=(80, 0, 70, 50)
    )
    pool.fill((block, {"score": block.columns("log_odds")[0]}) for block in pool.blocks)
    return pool


@pytest.mark.parametrize("balance", ["global", "quota", "quota_with_floor", "all"])
@pytest.mark.parametrize("n", [1, 40, 190, 10_000])
def test_every_row_is_accounted_for(tmp_path: Path, balance: Balance, n: int) -> None:
    pool = filled(tmp_path)
    chosen = select(pool, n, balance, floor_log_odds=0.0)
    wanted = 190 if balance == "all" else min(n, 190)
    assert len(chosen.rows) == wanted == len(set(chosen.rows.tolist()))
    assert chosen.dropped["duplicate_content"] == 10
    assert wanted + sum(chosen.dropped.values()) == len(pool)
    assert not set(range(50, 60)) & set(chosen.rows.tolist())


def test_floor_is_kept_until_it_cannot_be(tmp_path: Path) -> None:
    pool = filled(tmp_path)
    log_odds = pool.column("log_odds")
    above = int(((log_odds >= 0) & ~selection.duplicates(pool)).sum())
    chosen = select(pool, above, "quota_with_floor", 0.0)
    assert chosen.below_floor == 0
    assert (log_odds[chosen.rows] >= 0).all()
    more = select(pool, above + 5, "quota_with_floor", 0.0)
    assert more.below_floor == 5
    assert set(chosen.rows) <= set(more.rows)


def test_quota_is_balanced_and_global_is_not(tmp_path: Path) -> None:
    pool = filled(tmp_path)
    counts = {
        balance: np.bincount(pool.column("label")[select(pool, 60, balance, 0.0).rows], minlength=3)
        for balance in ("global", "quota")
    }
    assert np.ptp(counts["quota"][:2]) <= 1
    assert np.ptp(counts["global"][:2]) > 10


def test_nan_scores_are_refused(tmp_path: Path) -> None:
    pool = filled(tmp_path)
    pool.fill((block, {"score": np.full(len(block), np.nan, np.float32)}) for block in pool.blocks)
    with pytest.raises(ValueError, match="NaN scores"):
        select(pool, 5, "global", 0.0)


def test_duplicates_do_not_depend_on_buckets(tmp_path: Path) -> None:
    pool = filled(tmp_path)
    whole = np.array(selection.duplicates(pool))
    assert whole.sum() == 10
    np.testing.assert_array_equal(whole, selection.duplicates(pool, bucket_rows=16))


def test_starving_classes_are_named() -> None:
    found = list(selection.starving(np.array([50, 0, 10]), ["a", "b", "c"]))
    assert found == [("b", 0)]
