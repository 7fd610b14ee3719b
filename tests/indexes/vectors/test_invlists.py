"""Inverted lists: parts are sorted by list and merged in corpus order; damage is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexes.artifact import ArtifactError
from indexes.vectors.index import INDEX
from indexes.vectors.invlists import InvertedLists, open_part, write_part
from tests.support.vectors import clustered, make_index


def test_a_part_is_sorted_by_list(tmp_path: Path) -> None:
    codes = np.arange(12, dtype=np.uint8).reshape(4, 3)
    write_part(tmp_path / "a.lists", np.array([2, 0, 2, 1]), codes)
    lists, rows, sorted_codes = open_part(tmp_path / "a.lists", 4, 3)
    assert lists.tolist() == [0, 1, 2, 2]
    assert rows.tolist() == [1, 3, 0, 2]
    np.testing.assert_array_equal(sorted_codes, codes[rows])
    with pytest.raises(ArtifactError, match=r"a\.lists is damaged"):
        open_part(tmp_path / "a.lists", 5, 3)


def test_the_lists_of_an_index_hold_every_row_once(tmp_path: Path) -> None:
    vectors = make_index(tmp_path, clustered(1000), size=300, exact_rows=100)
    lists = InvertedLists(tmp_path / INDEX, vectors.index)
    assert len(lists.centroids) == len(lists.sizes) == vectors.index.nlist
    rows = np.concatenate([lists.read(number)[0] for number in range(vectors.index.nlist)])
    assert sorted(rows.tolist()) == list(range(1000))
    largest = int(lists.sizes.argmax())
    part_rows, vectors_read = lists.read(largest, 1, 3)
    np.testing.assert_array_equal(part_rows, lists.read(largest)[0][1:3])
    assert vectors_read.shape == (2, 24)
