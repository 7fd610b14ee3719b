"""Decoding the parts of a corpus: ordered batches, counted defects, damage reported at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexes.images.decode import Geometry
from indexes.sources.spec import open_parts
from pipeline.embedding.loader import Batch, PartEnd, decode_parts
from tests.support import corpora

VIEW = Geometry(32)


def decoded(path: Path, batch_size: int = 4, workers: int = 0) -> tuple[list[Batch], list[PartEnd]]:
    parts = list(enumerate(open_parts(str(path))))
    items = list(decode_parts(parts, [VIEW], batch_size, workers))
    ends = [item for item in items if isinstance(item, PartEnd)]
    return [item for item in items if isinstance(item, Batch)], ends


def test_batches_hold_the_images_in_order(tmp_path: Path) -> None:
    corpora.good_tar(tmp_path / "a.tar", 10)
    batches, (end,) = decoded(tmp_path / "a.tar")
    assert [len(batch.keys) for batch in batches] == [4, 4, 2]
    assert [key for batch in batches for key in batch.keys] == [f"im{n:05d}" for n in range(10)]
    assert batches[0].pixels[0].shape == (4, 32, 32, 3)
    assert batches[0].columns["width"].tolist() == [32] * 4
    assert (end.num_samples, end.dropped, end.damage) == (10, {}, None)


def test_defects_are_counted_by_reason(tmp_path: Path) -> None:
    members = [
        ("a.jpg", corpora.encoded(0)),
        ("a.jpg", corpora.encoded(1)),
        ("b.jpg", b""),
        ("c.jpg", b"no image"),
        ("d.txt", b"no image beside it"),
    ]
    batches, (end,) = decoded(corpora.tar_of(tmp_path / "a.tar", members))
    assert [batch.keys for batch in batches] == [["a"]]
    assert end.num_samples == sum(end.dropped.values()) + 1
    assert {"empty", "corrupt"} <= set(end.dropped)


def test_images_before_the_damage_are_kept(tmp_path: Path) -> None:
    path = corpora.good_tar(tmp_path / "a.tar", 8)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    batches, (end,) = decoded(path)
    assert 0 < sum(len(batch.keys) for batch in batches) < 8
    assert end.damage is not None
    assert "a.tar" in end.damage
    assert end.dropped["damaged_part"] >= 1
    assert not end.unreadable


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(tmp_path: Path, workers: int) -> None:
    for number in range(2):
        corpora.good_tar(tmp_path / "c" / f"{number}.tar", 5, first=10 * number)
    expected = {(batch.part, tuple(batch.keys)) for batch in decoded(tmp_path / "c")[0]}
    batches, ends = decoded(tmp_path / "c", workers=workers)
    assert {(batch.part, tuple(batch.keys)) for batch in batches} == expected
    assert sorted(end.part for end in ends) == [0, 1]
