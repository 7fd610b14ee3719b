"""Scales keep the order, have a fixed range, and are fitted only to candidates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.selection.scale import Norm, Scale
from tests.support.columns import pool_of

NORMS: tuple[Norm, ...] = ("rank", "neg_log2_rank", "minmax", "max")
VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50)


@settings(deadline=None, max_examples=30)
@given(VALUES)
def test_scales_keep_the_order_and_the_range(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    column = np.array(values, np.float32)
    pool = pool_of(tmp_path_factory.mktemp("pool"), 1, score=column, reason=0 * column)
    for norm in NORMS:
        scaled = Scale(pool, "score", norm)(column)
        assert (np.diff(scaled[np.argsort(column, kind="stable")]) >= 0).all()
        most = np.log2(2 * len(column)) if norm == "neg_log2_rank" else 1
        assert scaled.max() <= most + 1e-6
    ranks = Scale(pool, "score", "rank")(column)
    slow = [
        ((column < value).sum() + (column <= value).sum()) / 2 / len(column) for value in column
    ]
    np.testing.assert_allclose(ranks, slow, atol=1e-6)
    bits = Scale(pool, "score", "neg_log2_rank")(column)
    np.testing.assert_allclose(bits, -np.log2(1 - np.array(slow)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["normal", "atoms", "constant", "heavy"])
def test_rank_of_many_rows_is_exact_to_a_cell(tmp_path: Path, kind: str) -> None:
    generator = np.random.default_rng(0)
    column = generator.normal(size=300_000).astype(np.float32)
    if kind == "atoms":
        column = np.maximum(column, 0).round(2)
    elif kind == "constant":
        column[:] = 3
    elif kind == "heavy":
        column = np.exp(15 * column)
    pool = pool_of(tmp_path, 1, score=column, reason=np.zeros(len(column)))
    ordered = np.sort(column)
    below, upto = (np.searchsorted(ordered, column, side) for side in ("left", "right"))
    expected = (below + upto) / (2 * len(column))
    ranks = Scale(pool, "score", "rank")(column)
    assert np.abs(ranks - expected).max() < 2e-5
    bits = Scale(pool, "score", "neg_log2_rank")(column)
    assert np.abs(2.0**-bits - (1 - expected)).max() < 2e-5


@pytest.mark.parametrize("norm", NORMS)
def test_scales_are_fitted_to_candidates(tmp_path: Path, norm: Norm) -> None:
    column = np.arange(100, dtype=np.float32)
    reason = (column >= 50).astype(np.uint8)
    pool = pool_of(tmp_path / "a", 1, score=column, reason=reason)
    candidates = pool_of(tmp_path / "b", 1, score=column[:50], reason=reason[:50])
    np.testing.assert_array_equal(
        Scale(pool, "score", norm)(column[:50]),
        Scale(candidates, "score", norm)(column[:50]),
    )
