"""The selection equals a sort in memory, quotas sum to N, and every drop is counted."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pool import REASONS, Pool
from pipeline.selection.candidates import SIZES, ScanSizes
from pipeline.selection.top_n import Balance, Selection, select_top_n, starving, water_fill
from tests.support.columns import pool_of

Array = npt.NDArray[Any]
BALANCES: tuple[Balance, ...] = ("global", "quota", "quota_with_floor", "all")


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(0, 400))
def test_water_fill_is_even_and_exact(counts: list[int], total: int) -> None:
    quotas = water_fill(counts, total)
    assert quotas.sum() == min(total, sum(counts))
    assert (quotas <= counts).all()
    has_unused = quotas < counts
    # A class with unused rows gives at most one row fewer than any other class.
    if has_unused.any():
        assert quotas[has_unused].min() >= quotas.max() - 1


def by_sorting(pool: Pool, n: int, balance: Balance, floor: float) -> Array:
    """Select by a sort of everything in memory."""
    names = ("score", "label", "log_odds", "key_hash", "reason")
    score, label, log_odds, key_hash, reason = (np.array(pool.column(name)) for name in names)

    def best(rows: Array, count: int) -> Array:
        order = np.lexsort((rows, key_hash[rows], -(score[rows] + np.float32(0))))
        return rows[order[:count]]

    free = np.flatnonzero(reason == 0)
    if balance == "all":
        return free
    if balance == "global":
        return np.sort(best(free, n))
    above = free if balance == "quota" else free[log_odds[free] >= np.float32(floor)]
    quotas = water_fill(np.bincount(label[above], minlength=len(pool.classes)), n)
    by_class = [best(above[label[above] == number], quota) for number, quota in enumerate(quotas)]
    below = np.setdiff1d(free, above)
    return np.sort(np.concatenate([*by_class, best(below, n - int(quotas.sum()))]))


VALUES = {
    "few": st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 1e-45, -1e-45, 3.4e38]),
    "any": st.floats(width=32, allow_nan=False),
    "one": st.just(0.5),
}


@st.composite
def columns(draw: st.DrawFn) -> dict[str, Array]:
    total, num_classes = draw(st.integers(1, 60)), draw(st.integers(1, 5))

    def column(values: st.SearchStrategy[Any], dtype: Any = None) -> Array:
        return np.array(draw(st.lists(values, min_size=total, max_size=total)), dtype)

    hashes = st.sampled_from([0, 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
    return {
        "score": column(VALUES[draw(st.sampled_from(sorted(VALUES)))]),
        "label": column(st.integers(0, num_classes - 1)),
        "log_odds": column(st.sampled_from([-1.0, -0.0, 0.0, 2.0, np.inf, -np.inf])),
        "key_hash": column(hashes, np.uint64),
        "reason": column(st.sampled_from([0, 0, 0, 1, 2, 3])),
    }


TINY = ScanSizes(
    mapped_rows=20,
    span_rows=14,
    chunk_rows=5,
    sample_stripes=4,
    stripe_rows=2,
    min_buckets=2,
    table_cells=2,
    sorted_rows=0,
    digit_bits=3,
)
"""Spans, chunks and tables that are so small that no cut is found by sorting."""


@settings(max_examples=150, deadline=None)
@given(columns(), st.integers(0, 70), st.sampled_from(BALANCES), st.booleans())
def test_the_selection_equals_a_sort_in_memory(
    tmp_path_factory: pytest.TempPathFactory,
    given_columns: dict[str, Array],
    n: int,
    balance: Balance,
    tiny: bool,
) -> None:
    pool = pool_of(tmp_path_factory.mktemp("pool"), 6, **given_columns)
    selection, rows = select_rows(pool, n, balance, sizes=TINY if tiny else SIZES)
    expected = by_sorting(pool, n, balance, 0.0)
    np.testing.assert_array_equal(rows, expected)
    label, reason = given_columns["label"], given_columns["reason"]
    np.testing.assert_array_equal(selection.histogram, np.bincount(label[expected], minlength=6))
    assert selection.num_rows == len(expected)
    assert selection.num_rows + sum(selection.dropped.values()) == len(pool)
    for number, name in enumerate(REASONS[1:], 1):
        assert selection.dropped[name] == (reason == number).sum()
    if balance == "quota_with_floor":
        assert selection.below_floor == (given_columns["log_odds"][expected] < 0).sum()
    assert not list((pool.scratch / "out").glob(".*")), "no temporary file is left"


@pytest.mark.parametrize("n", range(28, 42))
def test_a_cut_among_the_negative_numbers_nearest_to_zero(n: int, tmp_path: Path) -> None:
    score = np.array([0.0, -0.0, -1e-45, 1e-45, -3e-45, -1.0, -np.inf] * 6, np.float32)
    constant = dict.fromkeys(("reason", "label", "log_odds"), np.zeros(42))
    pool = pool_of(tmp_path, 1, score=score, key_hash=np.arange(42) % 5, **constant)
    rows = select_rows(pool, n, "global", sizes=TINY)[1]
    np.testing.assert_array_equal(rows, by_sorting(pool, n, "global", 0.0))


def random_pool(directory: Path, seed: int = 0, total: int = 20_000) -> Pool:
    generator = np.random.default_rng(seed)
    log_odds = generator.normal(size=total)
    return pool_of(
        directory,
        3,
        label=generator.choice(3, total, p=[0.7, 0.25, 0.05]),
        log_odds=log_odds,
        score=log_odds,
        key_hash=generator.integers(0, 2**63, total),
        reason=np.arange(total) % 10 == 3,
    )


def select_rows(
    pool: Pool, n: int, balance: Balance, sizes: ScanSizes = SIZES
) -> tuple[Selection, Array]:
    out = pool.scratch / "out" / "rows.npy"
    selection = select_top_n(pool, n, balance, 0.0, out, sizes=sizes)
    return selection, np.load(out, allow_pickle=False)


@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize("n", [1, 4_000, 17_990, 1_000_000])
def test_every_row_is_selected_or_counted_as_dropped(
    tmp_path: Path, balance: Balance, n: int
) -> None:
    pool = random_pool(tmp_path)
    selection, rows = select_rows(pool, n, balance)
    expected = 18_000 if balance == "all" else min(n, 18_000)
    assert selection.num_rows == expected == len(np.unique(rows))
    assert selection.dropped["duplicate_content"] == 2_000
    assert expected + sum(selection.dropped.values()) == len(pool)
    np.testing.assert_array_equal(rows, by_sorting(pool, n, balance, 0.0))


def test_rows_below_the_floor_are_taken_only_to_reach_n(tmp_path: Path) -> None:
    pool = random_pool(tmp_path)
    log_odds = pool.column("log_odds")
    above = int(((log_odds >= 0) & (pool.column("reason") == 0)).sum())
    selection, rows = select_rows(pool, above, "quota_with_floor")
    assert selection.below_floor == 0
    assert (log_odds[rows] >= 0).all()
    larger, larger_rows = select_rows(pool, above + 5, "quota_with_floor")
    assert larger.below_floor == 5
    assert set(rows.tolist()) <= set(larger_rows.tolist())


def test_quota_balances_the_classes_and_global_does_not(tmp_path: Path) -> None:
    pool = random_pool(tmp_path)
    assert np.ptp(select_rows(pool, 600, "quota")[0].histogram) == 0
    assert np.ptp(select_rows(pool, 600, "global")[0].histogram) > 100


def test_nan_scores_of_candidates_are_refused(tmp_path: Path) -> None:
    pool = random_pool(tmp_path)
    score = np.array(pool.column("score"))
    score[3] = np.nan  # Row 3 is a duplicate: its score is never used.
    np.save(tmp_path / "score.npy", score)
    assert select_rows(pool, 5, "global")[0].num_rows == 5
    score[4] = np.nan
    np.save(tmp_path / "score.npy", score)
    with pytest.raises(ValueError, match="NaN scores"):
        select_rows(pool, 5, "global")


def test_equal_scores_are_ordered_by_key_hash(tmp_path: Path) -> None:
    pool = random_pool(tmp_path)
    np.save(tmp_path / "score.npy", np.zeros(len(pool), np.float32))
    for balance in BALANCES:
        _, rows = select_rows(pool, 1_000, balance, ScanSizes(sorted_rows=50))
        np.testing.assert_array_equal(rows, by_sorting(pool, 1_000, balance, 0.0))


def test_memory_grows_neither_with_the_pool_nor_with_n(tmp_path: Path) -> None:
    sizes = ScanSizes(merged_rows=1 << 15, sorted_rows=1 << 12)
    peaks = []
    for total in (600_000, 2_400_000):
        pool = random_pool(tmp_path / str(total), total=total)
        tracemalloc.start()
        out = tmp_path / "rows.npy"
        selection = select_top_n(pool, total // 2, "quota", 0.0, out, sizes=sizes)
        assert selection.num_rows == total // 2
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[1] < 2_400_000 * 8, "less memory than the rows take"


def test_starving_classes_are_named_with_their_shortfall() -> None:
    classes = list(starving(np.array([50, 0, 10]), ["a", "b", "c"]))
    assert classes == [("b", 0, 20)]
