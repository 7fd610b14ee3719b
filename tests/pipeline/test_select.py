"""The offline run end to end on small corpora: funnel, resume, determinism, bad input."""

from __future__ import annotations

import errno
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import winnow
from indexes import artefact
from indexes.embeddings import open_embeddings
from indexes.shards import open_shards
from indexes.verify import verify_shards
from pipeline import embed, shard
from tests.pipeline import worlds


def select(corpus: str | Path, runs: Path, *more: str, teacher: Path | None = None) -> Any:
    """`winnow select` in this process."""
    if teacher is None and not (runs / "teachers").exists():
        worlds.small_teacher(runs / "teachers" / "t")
    arguments = ["select", "--corpus", str(corpus), "--runs", str(runs), "--workers", "0"]
    arguments += ["--teacher", str(teacher)] if teacher else []
    return CliRunner().invoke(winnow.app, [*arguments, *more], catch_exceptions=False)


def shards_of(runs: Path) -> Path:
    return Path(json.loads((runs / "last-shards.json").read_text())["shards"])


def test_the_main_job(tmp_path: Path) -> None:
    worlds.good_tar(tmp_path / "c" / "a.tar", 30)
    worlds.good_tar(tmp_path / "c" / "b.tar.gz", 20, first=100)
    runs = tmp_path / "runs"
    result = select(tmp_path / "c", runs, "-n", "25")
    assert result.exit_code == 0, result.output
    directory = shards_of(runs)
    assert verify_shards(directory) == 25
    shards = open_shards(directory)
    assert shards.card["funnel"]["in"] == 50
    assert shards.card["method"] == "odsd"
    assert shards.columns["weight"].mean() == pytest.approx(1, abs=1e-4)
    for row, key in enumerate(shards.keys):
        assert shards.read(row) == worlds.encoded(int(key[2:])), "original bytes, original key"
    again = select(tmp_path / "c", runs, "-n", "25")
    assert again.output.count("unchanged") == 6


def test_targets_are_the_teachers_answers(tmp_path: Path) -> None:
    import torch

    from indexes import devices, teachers
    from indexes.images import load

    worlds.good_tar(tmp_path / "c.tar", 12)
    runs = tmp_path / "runs"
    assert select(tmp_path / "c.tar", runs, "-n", "12", "--method", "all").exit_code == 0
    shards = open_shards(shards_of(runs))
    teacher = teachers.open(runs / "teachers" / "t")
    pixels = np.stack([load(shards.read(row), teacher.geometry)[0] for row in range(12)])
    with devices.autocast("cpu"):
        logits = teacher(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)[2].numpy()
    np.testing.assert_allclose(shards.logits, logits, atol=0.05)
    tails = np.log(np.exp(logits).sum(1))
    np.testing.assert_allclose(shards.columns["logsumexp"], tails, atol=0.05)
    assert (shards.columns["label"] == shards.logits.argmax(1)).all()


def test_a_changed_setting_runs_only_what_depends_on_it(tmp_path: Path) -> None:
    worlds.good_tar(tmp_path / "c.tar", 20)
    runs = tmp_path / "runs"
    assert select(tmp_path / "c.tar", runs, "-n", "8").exit_code == 0
    fewer = select(tmp_path / "c.tar", runs, "-n", "5").output
    assert [kind for kind in ("embeddings", "vectors", "scores") if f"{kind}: unchanged" in fewer]
    assert "selection: unchanged" not in fewer
    unweighted = select(tmp_path / "c.tar", runs, "-n", "5", "--set", "weights=none").output
    assert "selection: unchanged" in unweighted
    assert "weights: unchanged" not in unweighted
    other = select(tmp_path / "c.tar", runs, "-n", "5", "--method", "dfnd").output
    assert "embeddings: unchanged" in other
    assert "scores: unchanged" not in other


def test_same_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    for number in range(3):
        worlds.good_tar(tmp_path / "c" / f"{number}.tar", 15, first=100 * number)
    found = []
    for workers in ("0", "1", "2"):
        runs = tmp_path / f"runs{workers}"
        shutil.copytree(tmp_path / "runs0" / "teachers", runs / "teachers") if found else None
        assert select(tmp_path / "c", runs, "-n", "20", "--workers", workers).exit_code == 0
        found.append(worlds.files_of(shards_of(runs)))
    assert found[0] == found[1] == found[2]


class Killed(BaseException):
    """Stands for kill -9: nothing of ours may catch it."""


@pytest.mark.parametrize("when", [1, 4, 9, 14, 19, 24, 29])
def test_killed_anywhere_and_run_again_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    for number in range(3):
        worlds.good_tar(tmp_path / "c" / f"{number}.tar.gz", 8, first=100 * number)
    whole = tmp_path / "whole"
    assert select(tmp_path / "c", whole, "-n", "12").exit_code == 0
    cut = tmp_path / "cut"
    shutil.copytree(whole / "teachers", cut / "teachers")
    real, count = Path.replace, itertools.count(1)

    def replace(self: Path, target: Path) -> Path:
        if next(count) == when:
            raise Killed
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(Killed):
            select(tmp_path / "c", cut, "-n", "12")
    assert not (cut / "last-shards.json").exists()
    assert select(tmp_path / "c", cut, "-n", "12").exit_code == 0
    assert worlds.files_of(shards_of(cut)) == worlds.files_of(shards_of(whole))


def defects() -> list[tuple[str, bytes]]:
    """Members with every kind of defect or oddity, and what becomes of each."""
    sound = worlds.encoded(7)
    return [
        ("corrupt.jpg", sound[:40] + b"\0" * 60),
        ("truncated.jpg", sound[: len(sound) // 2]),
        ("empty.jpg", b""),
        ("text.png", b"<html>404</html>"),
        ("gray.jpg", worlds.encoded(1, "L")),
        ("alpha.png", worlds.encoded(2, "RGBA", "PNG")),
        ("cmyk.jpg", worlds.encoded(3, "CMYK")),
        ("palette.png", worlds.encoded(4, "P", "PNG")),
        ("deep.png", worlds.encoded(5, "I;16", "PNG")),
        ("anim.gif", worlds.encoded(6, "P", "GIF")),
        ("first.jpg", worlds.encoded(8)),
        ("first.jpg", worlds.encoded(9)),
        ("twin.jpg", worlds.encoded(8)),
        ("lonely.txt", b"a caption without an image"),
    ]


def test_every_defect_is_a_counted_drop(tmp_path: Path) -> None:
    worlds.tar_of(tmp_path / "c" / "bad.tar", defects())
    cut = worlds.good_tar(tmp_path / "c" / "cut.tar", 10)
    cut.write_bytes(cut.read_bytes()[: 512 * 14])
    runs = tmp_path / "runs"
    result = select(tmp_path / "c", runs, "--method", "all")
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
    kept = set(shards.keys.tolist())
    assert {"gray", "alpha", "cmyk", "palette", "deep", "anim", "first"} <= kept
    assert not {"corrupt", "truncated", "empty", "text"} & kept
    assert verify_shards(shards.directory) == len(kept)


def test_on_error_stop_names_the_file(tmp_path: Path) -> None:
    cut = worlds.good_tar(tmp_path / "c" / "cut.tar", 10)
    cut.write_bytes(cut.read_bytes()[:5000])
    result = select(tmp_path / "c", tmp_path / "runs", "--on-error", "stop")
    assert result.exit_code == 2
    assert "cut.tar" in result.output


def test_same_key_in_two_parts_keeps_both(tmp_path: Path) -> None:
    worlds.tar_of(tmp_path / "c" / "a.tar", [("x.jpg", worlds.encoded(1))])
    worlds.tar_of(tmp_path / "c" / "b.tar", [("x.jpg", worlds.encoded(2))])
    runs = tmp_path / "runs"
    assert select(tmp_path / "c", runs, "--method", "all").exit_code == 0
    shards = open_shards(shards_of(runs))
    assert sorted(shards.keys.tolist()) == ["x", "x-1"]
    assert verify_shards(shards.directory) == 2


def test_n_beyond_the_pool_and_classes_that_nobody_predicts(tmp_path: Path) -> None:
    worlds.good_tar(tmp_path / "c.tar", 4)
    result = select(tmp_path / "c.tar", tmp_path / "runs", "-n", "1000")
    assert result.exit_code == 0, result.output
    assert "only 4 distinct images" in result.output
    histogram = open_shards(shards_of(tmp_path / "runs")).card["class_histogram"]
    assert sum(histogram) == 4
    assert ("no image for" in result.output) == (0 in histogram)


def test_an_empty_corpus_and_one_of_rubbish(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    result = select(tmp_path / "none", tmp_path / "runs")
    assert result.exit_code == 2
    assert "none" in result.output
    worlds.tar_of(tmp_path / "bad.tar", [("a.jpg", b"rubbish"), ("b.jpg", b"")])
    result = select(tmp_path / "bad.tar", tmp_path / "runs")
    assert result.exit_code == 2
    assert "none of its 2 samples could be embedded" in result.output


def test_another_teacher_makes_another_artefact(tmp_path: Path) -> None:
    worlds.good_tar(tmp_path / "c.tar", 6)
    runs = tmp_path / "runs"
    first = worlds.small_teacher(tmp_path / "t1", seed=1)
    second = worlds.small_teacher(tmp_path / "t2", seed=2)
    assert select(tmp_path / "c.tar", runs, "-n", "3", teacher=first).exit_code == 0
    before = shards_of(runs)
    assert select(tmp_path / "c.tar", runs, "-n", "3", teacher=second).exit_code == 0
    assert shards_of(runs) != before
    refused = select(tmp_path / "c.tar", runs, "-n", "3", "--out", str(before), teacher=second)
    assert refused.exit_code == 2
    assert "made from something else" in refused.output


def test_a_corpus_that_changed_underneath_is_refused(tmp_path: Path) -> None:
    path = worlds.good_tar(tmp_path / "c.tar", 6)
    runs = tmp_path / "runs"
    assert select(path, runs, "-n", "3").exit_code == 0
    shutil.rmtree(runs / "shards")
    stat = path.stat()
    worlds.good_tar(path, 6, first=1)
    import os

    os.truncate(path, stat.st_size) if path.stat().st_size > stat.st_size else None
    with path.open("ab") as file:
        file.write(b"\0" * (stat.st_size - path.stat().st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    result = select(path, runs, "-n", "3")
    assert result.exit_code == 2
    assert "not what was embedded" in result.output


def test_a_full_disk_is_one_line_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worlds.good_tar(tmp_path / "c.tar", 8)
    runs = tmp_path / "runs"
    worlds.small_teacher(runs / "teachers" / "t")

    def full(*arguments: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/embeddings")

    with monkeypatch.context() as patch:
        patch.setattr(embed.embeddings, "write_block", full)
        result = select(tmp_path / "c.tar", runs, "-n", "3")
    assert result.exit_code == 2
    assert "the disk is full" in result.output
    with monkeypatch.context() as patch:
        patch.setattr(shard.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 9))
        result = select(tmp_path / "c.tar", runs, "-n", "3")
    assert result.exit_code == 2
    assert "make room" in result.output
    assert select(tmp_path / "c.tar", runs, "-n", "3").exit_code == 0


def test_a_damaged_marker_is_named(tmp_path: Path) -> None:
    worlds.good_tar(tmp_path / "c.tar", 4)
    runs = tmp_path / "runs"
    assert select(tmp_path / "c.tar", runs, "-n", "3").exit_code == 0
    (card,) = (runs / "embeddings").glob("*/card.json")
    card.write_text("{")
    result = select(tmp_path / "c.tar", runs, "-n", "3")
    assert result.exit_code == 2
    assert "damaged" in result.output


def test_blocks_bound_memory_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worlds.good_tar(tmp_path / "c.tar", 300)
    assert select(tmp_path / "c.tar", tmp_path / "a", "-n", "50").exit_code == 0
    monkeypatch.setattr(embed, "BLOCK_ROWS", 64)
    shutil.copytree(tmp_path / "a" / "teachers", tmp_path / "b" / "teachers")
    assert select(tmp_path / "c.tar", tmp_path / "b", "-n", "50").exit_code == 0
    (place,) = (tmp_path / "b" / "embeddings").iterdir()
    assert len(open_embeddings(place).blocks) == 3
    assert worlds.files_of(shards_of(tmp_path / "a")) == worlds.files_of(shards_of(tmp_path / "b"))


def test_own_method_file(tmp_path: Path) -> None:
    worlds.good_tar(tmp_path / "c.tar", 6)
    method = tmp_path / "small_keys.py"
    method.write_text(
        "from dataclasses import dataclass\nimport numpy as np\n"
        "from pipeline.method import Choice\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Config(Choice):\n    sign: float = 1.0\n"
        "def score(pool, config, seed):\n"
        "    for block in pool.blocks:\n"
        "        yield block, {'score': -config.sign * np.arange(len(block), dtype=np.float32)}\n"
    )
    runs = tmp_path / "runs"
    assert select(tmp_path / "c.tar", runs, "-n", "2", "--method", str(method)).exit_code == 0
    assert set(open_shards(shards_of(runs)).keys) == {"im00000", "im00001"}
    result = select(tmp_path / "c.tar", runs, "--method", str(method), "--set", "sing=1")
    assert result.exit_code == 2
    assert "Did you mean 'sign'" in result.output


def test_unknown_method_and_corpus_suggest(tmp_path: Path) -> None:
    worlds.good_tar(tmp_path / "c.tar", 2)
    result = select(tmp_path / "c.tar", tmp_path / "runs", "--method", "dfdn")
    assert result.exit_code == 2
    assert "Did you mean 'dfnd'" in result.output
    result = select("imagnet21k", tmp_path / "runs")
    assert result.exit_code == 2
    assert "imagenet21k" in result.output


def test_no_teacher_shows_how_to_import_one(tmp_path: Path) -> None:
    worlds.good_tar(tmp_path / "c.tar", 2)
    (tmp_path / "runs" / "teachers").mkdir(parents=True)
    result = select(tmp_path / "c.tar", tmp_path / "runs")
    assert result.exit_code == 2
    assert "import-teacher" in result.output


def test_answers_are_stable_at_the_extremes() -> None:
    import torch

    logits = torch.tensor([[70000.0, -70000.0, 0.0], [1.0, 1.0, 1.0], [1e-3, 0.0, -1e-3]])
    matrices, columns = embed.answers(logits, torch.zeros(3, 2))
    assert all(np.isfinite(column).all() for column in (*columns.values(), *matrices.values()))
    assert columns["label"].tolist() == [0, 0, 0]
    assert columns["entropy"][1] == pytest.approx(np.log(3), rel=1e-5)
    assert columns["log_odds"][1] == pytest.approx(-np.log(2), rel=1e-5)
    many = torch.randn(4, 1000)
    matrices, _ = embed.answers(many, torch.zeros(4, 2))
    assert matrices["logits"].shape == (4, embed.TOP_LOGITS)
    picked = many.gather(1, torch.from_numpy(matrices["classes"]).long())
    np.testing.assert_allclose(matrices["logits"], picked, atol=5e-3)


def test_card_of_an_embedding_says_what_was_seen(tmp_path: Path) -> None:
    worlds.good_tar(tmp_path / "c.tar", 5)
    runs = tmp_path / "runs"
    assert select(tmp_path / "c.tar", runs, "-n", "3").exit_code == 0
    (place,) = (runs / "embeddings").iterdir()
    card = artefact.read_card(place, "embeddings")
    assert card["num_found"] == card["num_samples"] == 5
    assert card["parts"][0]["name"] == "c.tar"
    assert str(tmp_path) not in json.dumps(card), "no absolute path in an artefact"
