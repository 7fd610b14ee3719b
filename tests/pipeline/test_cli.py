"""The offline commands: JSON output and help; bad input gives a clear line or a counted drop."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

import winnow
from indexes import artifact
from indexes.shards.reader import open_shards
from indexes.shards.verify import verify_shards
from pipeline.embedding.embed import embeddings
from pipeline.pool import REASONS
from pipeline.write_shards import shutil
from tests.support import corpora
from tests.support.corpora import select, shards_of


@pytest.mark.parametrize("name", typer.main.get_command(winnow.app).commands)  # type: ignore[attr-defined]
def test_help_is_whole_at_80_columns(name: str) -> None:
    result = CliRunner().invoke(winnow.app, [name, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert "\u2026" not in result.output


def defects() -> list[tuple[str, bytes]]:
    """Make tar members with every kind of defect."""
    sound = corpora.encoded(7)
    return [
        ("corrupt.jpg", sound[:40] + b"\0" * 60),
        ("truncated.jpg", sound[: len(sound) // 2]),
        ("empty.jpg", b""),
        ("text.png", b"<html>404</html>"),
        ("gray.jpg", corpora.encoded(1, "L")),
        ("alpha.png", corpora.encoded(2, "RGBA", "PNG")),
        ("cmyk.jpg", corpora.encoded(3, "CMYK")),
        ("palette.png", corpora.encoded(4, "P", "PNG")),
        ("deep.png", corpora.encoded(5, "I;16", "PNG")),
        ("anim.gif", corpora.encoded(6, "P", "GIF")),
        ("first.jpg", corpora.encoded(8)),
        ("first.jpg", corpora.encoded(9)),
        ("twin.jpg", corpora.encoded(8)),
        ("lonely.txt", b"a caption without an image"),
    ]


def test_select_json_prints_only_json(tmp_path: Path) -> None:
    corpora.good_tar(tmp_path / "c.tar", 10)
    result = select(tmp_path / "c.tar", tmp_path / "runs", "-n", "6", "--json", "-q")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["shards"] == str(shards_of(tmp_path / "runs"))
    assert answer["funnel"]["kept"] == answer["num_samples"] == 6
    assert result.stderr == ""


def test_corpora_are_listed_with_their_summary_line() -> None:
    result = CliRunner().invoke(winnow.app, ["corpora"])
    assert result.exit_code == 0
    assert "demo             The corpus `demo`" in result.stdout


def test_every_defect_is_counted_as_a_drop(tmp_path: Path) -> None:
    corpora.tar_of(tmp_path / "c" / "bad.tar", defects())
    cut = corpora.good_tar(tmp_path / "c" / "cut.tar", 10)
    cut.write_bytes(cut.read_bytes()[: 512 * 14])
    runs = tmp_path / "runs"
    # Mode `near` would drop more: some of the defects show the same picture in another form.
    result = select(tmp_path / "c", runs, "--method", "all", "--dedup", "exact")
    assert result.exit_code == 0, result.output
    assert "cut.tar" in result.output
    shards = open_shards(shards_of(runs))
    funnel = shards.card["funnel"]
    assert funnel["in"] == funnel["kept"] + sum(funnel["dropped"].values())
    assert funnel["dropped"]["duplicate_key"] == 1
    assert funnel["dropped"]["duplicate_content"] == 1
    assert funnel["dropped"]["no_image"] == 1
    assert funnel["dropped"]["empty"] == 1
    assert funnel["dropped"]["truncated"] >= 1
    assert funnel["dropped"]["damaged_part"] == 1
    keys = set(shards.keys.tolist())
    assert {"gray", "alpha", "cmyk", "palette", "deep", "anim", "first"} <= keys
    assert not {"corrupt", "truncated", "empty", "text"} & keys
    assert verify_shards(shards.directory) == len(keys)


def test_on_error_stop_names_the_file(tmp_path: Path) -> None:
    cut = corpora.good_tar(tmp_path / "c" / "cut.tar", 10)
    cut.write_bytes(cut.read_bytes()[:5000])
    result = select(tmp_path / "c", tmp_path / "runs", "--on-error", "stop")
    assert result.exit_code == 1
    assert "cut.tar" in result.output


def test_equal_keys_in_two_parts_are_both_kept(tmp_path: Path) -> None:
    corpora.tar_of(tmp_path / "c" / "a.tar", [("x.jpg", corpora.encoded(1))])
    corpora.tar_of(tmp_path / "c" / "b.tar", [("x.jpg", corpora.encoded(2))])
    runs = tmp_path / "runs"
    assert select(tmp_path / "c", runs, "--method", "all").exit_code == 0
    shards = open_shards(shards_of(runs))
    assert sorted(shards.keys.tolist()) == ["x", "x-1"]
    assert verify_shards(shards.directory) == 2


def test_large_n_and_classes_without_images_are_reported(tmp_path: Path) -> None:
    corpora.good_tar(tmp_path / "c.tar", 4)
    result = select(tmp_path / "c.tar", tmp_path / "runs", "-n", "1000")
    assert result.exit_code == 0, result.output
    assert "only 4 candidates" in result.output
    histogram = open_shards(shards_of(tmp_path / "runs")).card["class_histogram"]
    assert sum(histogram) == 4
    assert ("have no image" in result.output) == (0 in histogram)


def test_an_empty_corpus_and_one_without_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    result = select(tmp_path / "none", tmp_path / "runs")
    assert result.exit_code == 1
    assert "none" in result.output
    corpora.tar_of(tmp_path / "bad.tar", [("a.jpg", b"rubbish"), ("b.jpg", b"")])
    result = select(tmp_path / "bad.tar", tmp_path / "runs")
    assert result.exit_code == 1
    assert "none of its 2 samples could be embedded" in result.output


def test_another_teacher_makes_another_artifact(tmp_path: Path) -> None:
    corpora.good_tar(tmp_path / "c.tar", 6)
    runs = tmp_path / "runs"
    first = corpora.small_teacher(tmp_path / "t1", seed=1)
    second = corpora.small_teacher(tmp_path / "t2", seed=2)
    assert select(tmp_path / "c.tar", runs, "-n", "3", teacher=first).exit_code == 0
    shards = shards_of(runs)
    assert select(tmp_path / "c.tar", runs, "-n", "3", teacher=second).exit_code == 0
    assert shards_of(runs) != shards
    refused = select(tmp_path / "c.tar", runs, "-n", "3", "--out", str(shards), teacher=second)
    assert refused.exit_code == 3
    assert "made from other inputs" in refused.output


def test_a_corpus_that_changed_after_embedding_is_refused(tmp_path: Path) -> None:
    path = corpora.good_tar(tmp_path / "c.tar", 6)
    runs = tmp_path / "runs"
    assert select(path, runs, "-n", "3").exit_code == 0
    shutil.rmtree(runs / "shards")
    stat = path.stat()
    corpora.good_tar(path, 6, first=1)
    import os

    os.truncate(path, stat.st_size) if path.stat().st_size > stat.st_size else None
    with path.open("ab") as file:
        file.write(b"\0" * (stat.st_size - path.stat().st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    result = select(path, runs, "-n", "3")
    assert result.exit_code == 1
    assert "not what was embedded" in result.output


def test_a_full_disk_prints_one_line_and_the_next_run_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpora.good_tar(tmp_path / "c.tar", 8)
    runs = tmp_path / "runs"
    corpora.small_teacher(runs / "teachers" / "t")

    def full(*arguments: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/embeddings")

    with monkeypatch.context() as patch:
        patch.setattr(embeddings, "write_block", full)
        result = select(tmp_path / "c.tar", runs, "-n", "3")
    assert result.exit_code == 1
    assert "the disk is full" in result.output
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 9))
        result = select(tmp_path / "c.tar", runs, "-n", "3")
    assert result.exit_code == 1
    assert "make room" in result.output
    assert select(tmp_path / "c.tar", runs, "-n", "3").exit_code == 0


def test_a_damaged_marker_is_named(tmp_path: Path) -> None:
    corpora.good_tar(tmp_path / "c.tar", 4)
    runs = tmp_path / "runs"
    assert select(tmp_path / "c.tar", runs, "-n", "3").exit_code == 0
    (card,) = (runs / "embeddings").glob("*/card.json")
    card.write_text("{")
    result = select(tmp_path / "c.tar", runs, "-n", "3")
    assert result.exit_code == 3
    assert "damaged" in result.output


def test_a_failed_part_is_read_by_the_next_run(tmp_path: Path) -> None:
    lake = tmp_path / "flaky.py"
    lake.write_text(
        "from dataclasses import dataclass\nfrom pathlib import Path\n"
        "from indexes.sources.spec import Sample\nfrom tests.support.corpora import encoded\n"
        "@dataclass(frozen=True)\nclass Lake:\n    name: str\n    random_access = False\n"
        "    def fingerprint(self):\n        return 'v1'\n"
        "    def __iter__(self):\n"
        "        yield Sample(self.name, 'jpg', encoded(len(self.name)), 0, {})\n"
        f"        if self.name == 'bb' and Path({str(tmp_path / 'down')!r}).exists():\n"
        "            raise TimeoutError('the store is away')\n"
        "def corpus():\n    return [Lake('a'), Lake('bb'), Lake('ccc')]\n"
    )
    (tmp_path / "down").touch()
    runs = tmp_path / "runs"
    result = select(lake, runs, "--method", "all")
    assert result.exit_code == 1
    assert "1 of 3 parts could not be read" in result.output
    assert "the store is away" in result.output
    (tmp_path / "down").unlink()
    assert select(lake, runs, "--method", "all").exit_code == 0
    no_drops = dict.fromkeys([*REASONS[1:], "not_selected"], 0)
    assert open_shards(shards_of(runs)).card["funnel"] == {"in": 3, "dropped": no_drops, "kept": 3}


def test_a_held_lock_is_refused_without_waiting(tmp_path: Path) -> None:
    refused = pytest.raises(artifact.ArtifactError, match="another winnow")
    with artifact.locked(tmp_path), refused, artifact.locked(tmp_path, wait=False):
        pass


def test_a_killed_decoding_process_prints_one_line(tmp_path: Path) -> None:
    lake = tmp_path / "deadly.py"
    lake.write_text(
        "import os\nfrom dataclasses import dataclass\nfrom indexes.sources.spec import Sample\n"
        "@dataclass(frozen=True)\nclass Lake:\n    name: str = 'lake'\n    random_access = False\n"
        "    def fingerprint(self):\n        return 'v1'\n"
        "    def __iter__(self):\n        os.kill(os.getpid(), 9)\n        yield\n"
        "def corpus():\n    return [Lake()]\n"
    )
    result = select(lake, tmp_path / "runs", "--workers", "1")
    assert result.exit_code == 1
    assert "a decoding process ended" in result.output


def test_images_with_logits_that_are_not_finite_are_dropped(tmp_path: Path) -> None:
    import torch

    from indexes.models.net import build_net
    from indexes.models.teacher import save_teacher

    net = build_net("resnet8", num_classes=3)
    with torch.no_grad():
        next(iter(net.parameters())).fill_(torch.nan)
    runs = tmp_path / "runs"
    save_teacher(runs / "teachers" / "t", net, classes=corpora.CLASSES, input_size=32)
    corpora.good_tar(tmp_path / "c.tar", 6)
    result = select(tmp_path / "c.tar", runs, "-n", "3")
    assert result.exit_code == 1
    assert "none of its 6 samples could be embedded (6 not_finite)" in result.output


def test_unknown_methods_and_corpora_get_suggestions(tmp_path: Path) -> None:
    corpora.good_tar(tmp_path / "c.tar", 2)
    result = select(tmp_path / "c.tar", tmp_path / "runs", "--method", "dfdn")
    assert result.exit_code == 1
    assert "Did you mean 'dfnd'" in result.output
    result = select("imagnet21k", tmp_path / "runs")
    assert result.exit_code == 1
    assert "imagenet21k" in result.output


def test_a_missing_teacher_shows_how_to_import_one(tmp_path: Path) -> None:
    corpora.good_tar(tmp_path / "c.tar", 2)
    (tmp_path / "runs" / "teachers").mkdir(parents=True)
    result = select(tmp_path / "c.tar", tmp_path / "runs")
    assert result.exit_code == 1
    assert "import-teacher" in result.output
