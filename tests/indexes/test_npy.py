"""NumPy files written by rows equal those of np.save; a file appears only when it is complete."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes import npy


def saved(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


@given(
    st.sampled_from([np.uint8, np.int64, np.float16, np.float32, np.bool_]),
    st.sampled_from([(), (3,), (2, 2)]),
    st.lists(st.integers(0, 5), max_size=5),
)
def test_the_bytes_equal_those_of_numpy(
    tmp_path_factory: pytest.TempPathFactory, dtype: Any, width: tuple[int, ...], sizes: list[int]
) -> None:
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    array = np.random.default_rng(0).integers(0, 2, (sum(sizes), *width)).astype(dtype)
    with npy.writing(path, array.shape, dtype) as writer:
        for rows in np.split(array, np.cumsum(sizes)[:-1]) if sizes else []:
            writer.write(rows)
    assert path.read_bytes() == saved(array)
    npy.save(path, array)
    assert path.read_bytes() == saved(array)


def test_rows_need_not_be_contiguous(tmp_path: Path) -> None:
    array = np.arange(24).reshape(4, 6)
    with npy.writing(tmp_path / "a.npy", (4, 3), array.dtype) as writer:
        writer.write(array[:, ::2])
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", allow_pickle=False), array[:, ::2])


def write(path: Path, *pieces: Any) -> None:
    with npy.writing(path, (4, 2), np.int64) as writer:
        for piece in pieces:
            writer.write(piece)


def test_missing_rows_keep_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    write(path, np.ones((4, 2), np.int64))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"a\.npy got 3 of 4 rows"):
        write(path, np.zeros((3, 2), np.int64))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.npy"]


@pytest.mark.parametrize(
    "rows", [np.ones((5, 2), np.int64), np.ones((4, 2), np.int32), np.ones((4, 3), np.int64)]
)
def test_rows_of_another_shape_or_type_are_refused(tmp_path: Path, rows: Any) -> None:
    with pytest.raises(ValueError, match="do not fit after"):
        write(tmp_path / "a.npy", rows)
    assert not list(tmp_path.iterdir())
