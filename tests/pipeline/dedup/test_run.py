"""The de-duplication stage: its modes, funnel, reuse and workers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from indexes import artifact
from indexes.shards.reader import open_shards
from pipeline.dedup.run import Mode
from tests.support import corpora, scenes
from tests.support.corpora import select, shards_of
from tests.support.duplicates import (
    corpus_with_copies,
    dedup_reasons,
    pool_of_images,
)


@pytest.mark.parametrize(
    ("mode", "expected"), [("off", [0, 0, 0]), ("exact", [0, 1, 0]), ("near", [0, 1, 2])]
)
def test_the_mode_selects_the_drops_and_is_recorded(
    tmp_path: Path, mode: Mode, expected: list[int]
) -> None:
    image = scenes.scene(1)
    images = [scenes.encoded(image), scenes.encoded(image), scenes.encoded(image, 60)]
    log_odds = np.array([3, 3, 1], np.float32)
    pool = pool_of_images(tmp_path, images, log_odds=log_odds)
    assert dedup_reasons(pool, tmp_path / "d", mode).tolist() == expected
    card = artifact.read_card(tmp_path / "d", "dedup")
    assert card["mode"] == mode
    assert card["evaluation"] is None
    assert card["num_candidates"] == expected.count(0)
    assert card["duplicate_rate"] == pytest.approx(1 - expected.count(0) / 3)
    assert not (tmp_path / "d" / "thumbs.npy").exists()


def test_a_full_run_counts_and_reports_duplicates(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    corpus_with_copies(tmp_path / "c")
    (tmp_path / "eval").mkdir()
    for seed in (20, 21):
        data = scenes.copy_of(scenes.scene(seed), "flip", seed)
        (tmp_path / "eval" / f"e{seed}.jpg").write_bytes(data)
    runs = tmp_path / "runs"
    exclude = ("--exclude-eval", str(tmp_path / "eval"))
    result = select(tmp_path / "c", runs, "--method", "all", *exclude)
    assert result.exit_code == 0, result.output
    assert "2 of 2 evaluation images appear in 2 images" in caplog.text
    assert "e20" in caplog.text
    card = open_shards(shards_of(runs)).card
    assert card["funnel"]["dropped"] == {
        "duplicate_content": 1,
        "near_duplicate": 6,
        "protected": 2,
        "not_selected": 0,
    }
    assert card["funnel"]["kept"] == 28
    assert card["dedup"]["mode"] == "near"
    assert str(tmp_path) not in json.dumps(card), "an artifact contains no absolute path"
    repeated = select(tmp_path / "c", runs, "--method", "all", *exclude)
    assert "dedup: unchanged" in repeated.output
    off = select(tmp_path / "c", runs, "--method", "all", "--dedup", "off")
    assert "dedup: unchanged" not in off.output
    assert len(open_shards(shards_of(runs)).keys) == 37


@pytest.mark.slow
def test_the_number_of_workers_does_not_change_the_result(tmp_path: Path) -> None:
    corpus_with_copies(tmp_path / "c")
    corpora.good_tar(tmp_path / "eval" / "0.tar", 5)
    files = []
    for workers in ("0", "1"):
        runs = tmp_path / f"runs{workers}"
        corpora.small_teacher(runs / "teachers" / "t")
        more = ("--workers", workers, "--exclude-eval", str(tmp_path / "eval"))
        assert select(tmp_path / "c", runs, "--method", "all", *more).exit_code == 0
        files.append(corpora.files_of(next((runs / "dedup").iterdir())))
    assert files[0] == files[1]
