"""The pool: complete and ordered columns, rows split by block, keys by row."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexes.plugins import PluginError
from pipeline.pool import Pool
from tests.support.pools import make_pool


def test_threads_can_read_the_same_column(tmp_path: Path) -> None:
    log_odds = np.arange(200_000, dtype=np.float32)
    pool = make_pool(tmp_path, label=np.zeros(200_000, int), log_odds=log_odds)
    with ThreadPoolExecutor(8) as threads:
        sums = list(threads.map(lambda _: pool.column("log_odds")[:].sum(), range(32)))
    assert set(sums) == {log_odds.sum()}


def small_pool(directory: Path) -> Pool:
    return make_pool(directory, label=np.zeros(10, int), log_odds=np.arange(10.0), blocks=(4, 1, 5))


def test_rows_are_split_by_block(tmp_path: Path) -> None:
    pool = small_pool(tmp_path)
    split = [(block.part, local.tolist()) for block, local in pool.by_block(np.array([1, 3, 5, 9]))]
    assert split == [(0, [1, 3]), (2, [0, 4])]
    assert list(pool.by_block(np.zeros(0, np.int64))) == []


def test_keys_have_the_order_of_the_rows(tmp_path: Path) -> None:
    keys = small_pool(tmp_path).keys_of(np.array([9, 0, 4, 9]))
    assert keys == [("k9", "p2"), ("k0", "p0"), ("k4", "p1"), ("k9", "p2")]


def test_a_score_that_yields_something_else_is_refused(tmp_path: Path) -> None:
    pool = small_pool(tmp_path)
    blocks: Any = pool.blocks
    with pytest.raises(PluginError, match=r"score\(\) gave Block: yield a block and its columns"):
        pool.fill(blocks)


def test_a_column_is_written_completely_and_in_order_or_not_at_all(tmp_path: Path) -> None:
    pool = small_pool(tmp_path)
    values = [(block, {"mine": np.arange(block.start, block.stop)}) for block in pool.blocks]
    for blocks, message in (
        (values[:2], r"\['mine'\] end before the last of 10 rows"),
        (values[1:], "every block once, in order"),
        ([(values[0][0], {"mine": np.zeros(3)})], "every block once, in order"),
    ):
        with pytest.raises(ValueError, match=message):
            pool.fill(blocks)
        assert not pool.has("mine")
    pool.fill(values)
    assert pool.column("mine").dtype == np.float32
    np.testing.assert_array_equal(pool.column("mine"), np.arange(10))
    assert pool.scores == ["mine"]
