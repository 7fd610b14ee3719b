"""`winnow select` end to end on small corpora: its funnel, resuming and determinism."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import pipeline
from indexes import artifact
from indexes.embeddings import open_embeddings
from indexes.models.teacher import load_teacher
from indexes.shards.reader import open_shards
from indexes.shards.verify import verify_shards
from indexes.vectors.index import normalize_rows
from pipeline.config import SelectConfig
from pipeline.scores import knn_distance
from tests.support import corpora
from tests.support.corpora import select, shards_of
from tests.support.shards import write_shards


def test_select_writes_verified_shards_and_reuses_every_stage(tmp_path: Path) -> None:
    corpora.good_tar(tmp_path / "c" / "a.tar", 30)
    corpora.good_tar(tmp_path / "c" / "b.tar.gz", 20, first=100)
    runs = tmp_path / "runs"
    result = select(tmp_path / "c", runs, "-n", "25")
    assert result.exit_code == 0, result.output
    directory = shards_of(runs)
    assert verify_shards(directory) == 25
    shards = open_shards(directory)
    assert shards.card["funnel"]["in"] == 50
    assert shards.card["method"] == "winnow"
    assert shards.columns["weight"].mean() == pytest.approx(1, abs=1e-4)
    for row, key in enumerate(shards.keys):
        assert shards.read(row) == corpora.encoded(int(key[2:])), (
            "a shard has the original bytes and key"
        )
    repeated = select(tmp_path / "c", runs, "-n", "25")
    assert repeated.output.count("unchanged") == 8


def test_select_works_from_python(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    corpora.tar_of(tmp_path / "twin.tar", [("twin.jpg", corpora.encoded(3))])
    corpora.good_tar(tmp_path / "c.tar", 30)
    teacher = load_teacher(corpora.small_teacher(tmp_path / "teacher"))
    config = SelectConfig(
        corpus=f"{tmp_path / 'c.tar'},{tmp_path / 'twin.tar'}",
        teacher=teacher,
        n=12,
        settings={"hardness_weight": 0.0, "weights": "none"},
        runs=tmp_path / "runs",
        workers=0,
    )
    shards = pipeline.select(config)
    assert shards.funnel["kept"] == len(shards) == 12
    assert shards.certificate["effective_frac"] == 1
    pool = pipeline.open_pool(shards, tmp_path / "runs", teacher)
    table = pool.to_pandas()
    assert len(table) == len(pool) == 31
    assert {"score", "outlier", "knn_distance", "log_odds", "class"} <= set(table.columns)
    counts = {name: count for name, count in table.reason.value_counts().items() if count}
    dropped = {name: count for name, count in shards.funnel["dropped"].items() if count}
    assert counts == {"kept": 12, **dropped}
    assert set(table[table.reason == "kept"].key) == set(shards.keys.tolist())
    assert capfd.readouterr() == ("", "")


def test_imported_shards_have_no_pool(tmp_path: Path) -> None:
    write_shards(tmp_path)
    with pytest.raises(artifact.ArtifactError, match="not selected from a pool"):
        pipeline.open_pool(tmp_path)


def test_targets_are_the_logits_of_the_teacher(tmp_path: Path) -> None:
    import torch

    from indexes import devices
    from indexes.images.decode import load_view

    corpora.good_tar(tmp_path / "c.tar", 12)
    runs = tmp_path / "runs"
    assert select(tmp_path / "c.tar", runs, "-n", "12", "--method", "all").exit_code == 0
    shards = open_shards(shards_of(runs))
    teacher = load_teacher(runs / "teachers" / "t")
    pixels = np.stack([load_view(shards.read(row), teacher.geometry)[0] for row in range(12)])
    with devices.autocast("cpu"):
        logits = teacher(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)[2].numpy()
    np.testing.assert_allclose(shards.logits, logits, atol=0.05)
    tails = np.log(np.exp(logits).sum(1))
    np.testing.assert_allclose(shards.columns["logsumexp"], tails, atol=0.05)
    assert (shards.columns["label"] == shards.logits.argmax(1)).all()


def test_the_knn_distance_is_written_for_every_method(tmp_path: Path) -> None:
    corpora.good_tar(tmp_path / "c.tar", 40)
    runs = tmp_path / "runs"
    assert select(tmp_path / "c.tar", runs, "-n", "8", "--method", "random").exit_code == 0
    embedded = open_embeddings(next((runs / "embeddings").glob("*-*")))
    rows = normalize_rows(np.concatenate([block.matrix("features") for block in embedded.blocks]))
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -1)
    tenth = np.sort(cosines, axis=1)[:, -knn_distance.K]
    distance = np.load(next((runs / "columns").glob("*-*")) / "knn_distance.npy")
    np.testing.assert_allclose(distance, 1 - tenth, atol=2e-3)


def test_a_changed_setting_runs_only_the_stages_that_depend_on_it(tmp_path: Path) -> None:
    corpora.good_tar(tmp_path / "c.tar", 20)
    runs = tmp_path / "runs"
    assert select(tmp_path / "c.tar", runs, "-n", "8").exit_code == 0
    fewer = select(tmp_path / "c.tar", runs, "-n", "5").output
    for kind in ("embeddings", "vectors", "dedup", "columns", "scores"):
        assert f"{kind}: unchanged" in fewer
    assert "selection: unchanged" not in fewer
    unweighted = select(tmp_path / "c.tar", runs, "-n", "5", "--set", "weights=none").output
    assert "selection: unchanged" in unweighted
    assert "weights: unchanged" not in unweighted
    dfnd = select(tmp_path / "c.tar", runs, "-n", "5", "--method", "dfnd").output
    assert "columns: unchanged" in dfnd, "all methods share the raw columns"
    assert "scores: unchanged" not in dfnd


def test_only_a_replaced_part_is_indexed_again(tmp_path: Path) -> None:
    for number in range(3):
        corpora.good_tar(tmp_path / "c" / f"{number}.tar", 10, first=100 * number)
    runs = tmp_path / "runs"
    assert select(tmp_path / "c", runs, "-n", "8").exit_code == 0
    corpora.good_tar(tmp_path / "c" / "1.tar", 12, first=900)
    assert select(tmp_path / "c", runs, "-n", "8").exit_code == 0
    first, second = sorted((runs / "vectors").iterdir(), key=lambda path: path.stat().st_mtime)
    older, newer = (
        {path.name: path.stat().st_ino for path in (directory / "parts").iterdir()}
        for directory in (first, second)
    )
    assert len(older) == len(newer) == 3
    assert len(older.items() & newer.items()) == 2, "two parts are linked, not built again"
    assert artifact.read_card(second, "vectors")["num_vectors"] == 32


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path) -> None:
    for number in range(3):
        corpora.good_tar(tmp_path / "c" / f"{number}.tar", 15, first=100 * number)
    shard_files = []
    for workers in ("0", "1", "2"):
        runs = tmp_path / f"runs{workers}"
        shutil.copytree(tmp_path / "runs0" / "teachers", runs / "teachers") if shard_files else None
        assert select(tmp_path / "c", runs, "-n", "20", "--workers", workers).exit_code == 0
        shard_files.append(corpora.files_of(shards_of(runs)))
    assert shard_files[0] == shard_files[1] == shard_files[2]


class Killed(BaseException):
    """Simulate kill -9: winnow's code may not catch this exception."""


@pytest.mark.parametrize("kill_at", [1, 4, 9, 14, 19, 24, 29])
def test_a_run_killed_anywhere_resumes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    for number in range(3):
        corpora.good_tar(tmp_path / "c" / f"{number}.tar.gz", 8, first=100 * number)
    full_run = tmp_path / "whole"
    assert select(tmp_path / "c", full_run, "-n", "12").exit_code == 0
    killed_run = tmp_path / "cut"
    shutil.copytree(full_run / "teachers", killed_run / "teachers")
    real, count = Path.replace, itertools.count(1)

    def replace(self: Path, target: Path) -> Path:
        if next(count) == kill_at:
            raise Killed
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(Killed):
            select(tmp_path / "c", killed_run, "-n", "12")
    assert not (killed_run / "last-shards.json").exists()
    assert select(tmp_path / "c", killed_run, "-n", "12").exit_code == 0
    assert corpora.files_of(shards_of(killed_run)) == corpora.files_of(shards_of(full_run))


def test_a_method_can_be_a_python_file(tmp_path: Path) -> None:
    corpora.good_tar(tmp_path / "c.tar", 6)
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
    assert result.exit_code == 1
    assert "Did you mean 'sign'" in result.output


@pytest.mark.slow
def test_a_corpus_can_be_a_python_file_with_its_own_parts(tmp_path: Path) -> None:
    lake = tmp_path / "lake.py"
    lake.write_text(
        "from dataclasses import dataclass\nfrom indexes.sources.spec import Sample\n"
        "from tests.support.corpora import encoded\n"
        "@dataclass(frozen=True)\nclass Lake:\n    name: str = 'lake'\n    random_access = False\n"
        "    def fingerprint(self):\n        return 'v1'\n"
        "    def __iter__(self):\n"
        "        for n in (5, 3, 4, 3):\n"
        "            yield Sample(f'../n{n}', 'jpg', encoded(n), n, {})\n"
        "def corpus():\n    return [Lake()]\n"
    )
    runs = tmp_path / "runs"
    result = select(lake, runs, "--method", "all", "--workers", "1")
    assert result.exit_code == 0, result.output
    shards = open_shards(shards_of(runs))
    assert shards.card["funnel"]["dropped"]["duplicate_key"] == 1
    images = {str(key): shards.read(row) for row, key in enumerate(shards.keys)}
    assert images == {f"n{n}": corpora.encoded(n) for n in (3, 4, 5)}, (
        "keys contain no `..`, and each key has the bytes of its image"
    )


def test_the_card_of_an_embedding_lists_its_parts(tmp_path: Path) -> None:
    corpora.good_tar(tmp_path / "c.tar", 5)
    runs = tmp_path / "runs"
    assert select(tmp_path / "c.tar", runs, "-n", "3").exit_code == 0
    (directory,) = (runs / "embeddings").iterdir()
    card = artifact.read_card(directory, "embeddings")
    assert card["num_found"] == card["num_samples"] == 5
    assert card["parts"][0]["name"] == "c.tar"
    assert str(tmp_path) not in json.dumps(card), "an artifact contains no absolute path"
