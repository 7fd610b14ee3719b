"""The neighbors of every row equal those of brute force, even for few rows and for equal rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexes.vectors.knn import TileSizes
from tests.support.vectors import clustered, make_index, nearest, recall

ROWS = clustered(3000)


@pytest.mark.parametrize("budget_bytes", [4 << 30, 1 << 16])
@pytest.mark.parametrize("tile_rows", [300, 32_768])
def test_neighbors_equal_those_of_brute_force(
    tmp_path: Path, budget_bytes: int, tile_rows: int
) -> None:
    sizes = TileSizes(tile_rows=tile_rows, list_rows=64, pending=5000)
    rows = ROWS.copy()
    noise = np.random.default_rng(1).normal(scale=0.05, size=(100, rows.shape[1]))
    rows[2500:2600] = rows[:100] + noise  # near duplicates
    index = make_index(tmp_path, rows, budget_bytes=budget_bytes, exact_rows=100)
    assert index.card["factory"].endswith("SQfp16" if budget_bytes > 1 << 20 else "SQ8")
    blocks = [rows[:10], rows[10:2000], rows[2000:2000], rows[2000:]]
    results = list(index.neighbors(blocks, 5, sizes=sizes))
    assert [len(values) for values, _ in results] == [10, 1990, 0, 1000]
    similarity, neighbors = (np.concatenate(parts) for parts in zip(*results, strict=True))
    exact, near = nearest(rows, rows, 6)
    row_ids = np.arange(len(rows))[:, None]
    assert not (neighbors == row_ids).any()
    assert (np.diff(similarity, axis=1) <= 0).all()
    expected = near[near != row_ids].reshape(len(rows), 5)
    assert recall(neighbors, expected) > (0.95 if budget_bytes > 1 << 20 else 0.85)
    assert ((neighbors[:100] == np.arange(2500, 2600)[:, None]).any(1)).all(), (
        "every near duplicate is the neighbor of its original"
    )
    near_first = np.abs(similarity[:, 0] - exact[:, 1]) < 0.01
    assert near_first.mean() > 0.9
    assert not list(tmp_path.glob("*tmp*"))


def test_few_and_equal_rows_have_neighbors(tmp_path: Path) -> None:
    short = make_index(tmp_path / "few", ROWS[:3], size=2)
    similarity, rows = next(short.neighbors([range(3)], 4))
    assert sorted(rows[0].tolist()) == [-1, -1, 1, 2]
    assert np.isneginf(similarity[:, 2:]).all()
    equal = make_index(tmp_path / "equal", np.ones((400, 8), np.float16))
    similarity, rows = next(equal.neighbors([range(400)], 3))
    assert not (rows == np.arange(400)[:, None]).any()
    np.testing.assert_allclose(similarity, 1, atol=2e-3)
