"""Sample images come from all parts of a set, also of a sorted one, and are reproducible."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.exporters.sample_images import gather_samples
from indexes.images.decode import Geometry
from indexes.shards.tar_writer import HashedTar
from tests.support import distillation


def test_samples_come_from_all_parts_of_a_folder(tmp_path: Path) -> None:
    for number in range(40):
        folder = tmp_path / f"class{number // 10}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.png").write_bytes(distillation.draw_image(number))
    (tmp_path / "class2" / "00.png").write_bytes(b"")
    samples = gather_samples(str(tmp_path), 12, Geometry(32))
    assert len(samples) == 11
    assert samples.dropped == {"empty": 1}
    numbers = [number for number in range(40) if distillation.draw_image(number) in samples.encoded]
    assert {number // 10 for number in numbers} == {0, 1, 2, 3}
    assert [len(batch) for batch in samples.batches(0, 99, 4)] == [4, 4, 3]
    assert gather_samples(str(tmp_path), 12, Geometry(32)).encoded == samples.encoded


def test_samples_come_from_all_parts_of_a_sorted_tar(tmp_path: Path) -> None:
    with (tmp_path / "sorted.tar").open("wb") as file:
        tar = HashedTar(file)
        for number in range(120):
            tar.add(f"{number:03}.png", distillation.draw_image(number))
        tar.close()
    samples = gather_samples(str(tmp_path / "sorted.tar"), 12, Geometry(32))
    thirds = {
        number // 40 for number in range(120) if distillation.draw_image(number) in samples.encoded
    }
    assert (len(samples), thirds) == (12, {0, 1, 2})


def test_a_set_without_an_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"")
    with pytest.raises(ValueError, match="no image can be decoded"):
        gather_samples(str(tmp_path), 1, Geometry(32))
