"""Parquet: the layouts of data hubs, and tables that have no images or are damaged."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexes.sources.spec import SourceError, open_parts
from tests.support.lakes import damaged, hub, only, put


def test_the_layout_of_data_hubs_is_read(tmp_path: Path) -> None:
    part = only(hub(tmp_path / "data" / "train-00000.parquet"))
    assert (part.name, part.random_access) == ("train-00000.parquet", False)
    samples = list(part)
    assert [(s.key, s.ext, s.offset) for s in samples][:2] == [
        ("n0/im_0", "jpeg", 0), ("n1/im_1", "jpeg", 1)
    ]  # fmt: skip
    assert samples[4].extras == {"cls": b"4"}
    assert samples[3].data == b"\x89PNG3"
    assert only(str(tmp_path)).name == "train-00000.parquet"
    with pytest.raises(SourceError, match="in order"):
        part.fetch("x", 0, 1)


def test_a_column_of_plain_bytes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    rows = [b"\xff\xd8..", b"\x89PNG", None, b"RIFF....WEBP", b"?"]
    pq.write_table(pa.table({"content": pa.array(rows, pa.binary()), "n": list(range(5))}), path)
    samples = list(only(str(path)))
    assert [(s.key, s.ext) for s in samples] == [
        ("00000000", "jpg"), ("00000001", "png"), ("00000002", ""), ("00000003", "webp"),
        ("00000004", "jpg"),
    ]  # fmt: skip
    assert samples[0].extras == {}
    keyed = hub(tmp_path / "k.parquet", __key__=["a.b", "../../c.jpg", "/d", None, "e"])
    assert [s.key for s in only(keyed)] == ["a_b", "c", "d", "n3/im_3", "e"]


def test_parquet_without_images_or_damaged_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": ["a"], "number": [1]}), path)
    with pytest.raises(SourceError, match="none of the columns text, number"):
        open_parts(str(path))
    data = Path(hub(tmp_path / "w.parquet", 500)).read_bytes()
    assert damaged(only(put(tmp_path / "cut.parquet", data[: len(data) // 2])))[0] == []
    holed = bytearray(data)
    holed[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    samples, message = damaged(only(put(tmp_path / "hole.parquet", bytes(holed))))
    assert len(samples) < 500
    assert "hole.parquet" in message
