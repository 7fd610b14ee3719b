"""Every leaked evaluation image is listed and its group is dropped; broken sets are refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from indexes import artifact
from pipeline.dedup.run import MODES
from pipeline.pool import REASONS
from tests.support import corpora, scenes
from tests.support.corpora import select
from tests.support.duplicates import (
    dedup_reasons,
    pool_of_images,
)


def test_every_planted_leak_is_listed_and_its_group_dropped(tmp_path: Path) -> None:
    originals = [scenes.scene(seed) for seed in range(30)]
    tests = tmp_path / "eval"
    (tests / "cat").mkdir(parents=True)
    for seed in range(12):
        (tests / "cat" / f"t{seed}.jpg").write_bytes(scenes.encoded(originals[seed], 88))
    (tests / "cat" / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    images = [scenes.encoded(scenes.scene(seed)) for seed in range(100, 140)]
    planted = [(seed, kind) for seed in range(12) for kind in scenes.KINDS]
    images += [scenes.copy_of(originals[seed], kind, seed) for seed, kind in planted]
    images += [(tests / "cat" / "t3.jpg").read_bytes()] * 2
    for mode in MODES:
        pool = pool_of_images(tmp_path / mode, images)
        reason = dedup_reasons(pool, tmp_path / mode / "d", mode, str(tests))
        assert (reason[:40] == 0).all()
        assert (reason[40:] == 3).all()
        table = pq.read_table(tmp_path / mode / "d" / "protected.parquet").to_pydict()
        leaks = set(zip(table["evaluation_key"], table["key"], strict=True))
        for row, (seed, _) in enumerate(planted):
            assert any(f"t{seed}" in image for image, key in leaks if key == f"k{40 + row}")
        assert {"k112", "k113"} <= {key for _, key in leaks}
        card = artifact.read_card(tmp_path / mode / "d", "dedup")
        assert card["evaluation"]["num_images"] == card["evaluation"]["num_seen"] == 12
        assert card["evaluation"]["num_unreadable"] == 1
        assert card["dropped"] == {**dict.fromkeys(REASONS[1:], 0), "protected": 74}


def test_an_unreadable_set_is_refused(tmp_path: Path) -> None:
    corpora.good_tar(tmp_path / "c.tar", 5)
    runs = tmp_path / "runs"

    def refused(path: Path) -> str:
        result = select(tmp_path / "c.tar", runs, "--exclude-eval", str(path))
        assert result.exit_code == 1
        return str(result.output)

    assert "no such file" in refused(tmp_path / "nowhere")
    corpora.tar_of(tmp_path / "text.tar", [("a.jpg", b"no image"), ("b.jpg", b"")])
    assert "none of its 2 samples is a readable image" in refused(tmp_path / "text.tar")
    cut = corpora.good_tar(tmp_path / "cut.tar", 10)
    cut.write_bytes(cut.read_bytes()[: 512 * 14])
    assert "cut.tar" in refused(cut)
    assert "all of its images are in the evaluation set" in refused(tmp_path / "c.tar")
    unknown_mode = select(tmp_path / "c.tar", runs, "--dedup", "fuzzy")
    assert unknown_mode.exit_code == 2
    assert "is not one of" in unknown_mode.output
