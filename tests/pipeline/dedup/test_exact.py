"""Exact copies equal those found with a dictionary."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dedup.exact import find_copies

Array = npt.NDArray[Any]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=80), st.integers(1, 50))
def test_exact_copies_equal_those_of_a_dictionary(content: list[int], bucket_rows: int) -> None:
    class Columns:
        def __len__(self) -> int:
            return len(content)

        def column(self, name: str) -> Array:
            if name == "size":
                return np.array(content, np.int64) % 2
            return np.array(content, np.uint64) // np.uint64(2)

    pool: Any = Columns()
    groups = find_copies(pool, bucket_rows)
    first: dict[int, int] = {}
    naive = {row: first[c] for row, c in enumerate(content) if first.setdefault(c, row) != row}
    assert dict(zip(groups.rows.tolist(), groups.kept.tolist(), strict=True)) == naive
    assert groups.rows.tolist() == sorted(naive)
