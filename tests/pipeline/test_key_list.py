"""Key lists: a selection is exported and imported again, byte for byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexes.artifact import ArtifactError
from indexes.shards.reader import Shards, open_shards
from pipeline import key_list
from tests.support import corpora
from tests.support.corpora import select, shards_of


def run_select(corpus: Path, runs: Path, *more: str) -> tuple[Shards, str]:
    result = select(corpus, runs, *more)
    assert result.exit_code == 0, result.output
    return open_shards(shards_of(runs)), result.output


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, Path]:
    corpora.good_tar(tmp_path / "c" / "a.tar", 30)
    corpora.good_tar(tmp_path / "c" / "b.tar.gz", 20, first=20)  # ten keys that are also in a.tar
    return tmp_path / "c", tmp_path / "runs"


def test_an_exported_list_selects_the_same_shards(world: tuple[Path, Path], tmp_path: Path) -> None:
    corpus, runs = world
    list_path = tmp_path / "keys.parquet"
    first, _ = run_select(corpus, runs, "-n", "25", "--export", str(list_path))
    table = pq.read_table(list_path)
    assert table.schema.equals(key_list.schema())
    names = list(zip(table["source"].to_pylist(), table["key"].to_pylist(), strict=True))
    assert names == sorted(names)
    assert len(names) == 25
    assert {source for source, _ in names} == {"a.tar", "b.tar.gz"}
    second, output = run_select(corpus, runs, "--keys", str(list_path))
    assert "columns: unchanged" in output
    for name, data in corpora.files_of(first.directory).items():
        if name.endswith(".tar"):
            assert data == (second.directory / name).read_bytes()
    assert first.columns.keys() == second.columns.keys()
    for name, column in first.columns.items():
        np.testing.assert_array_equal(column, second.columns[name])
    card_keys = (
        "funnel",
        "num_requested",
        "class_histogram",
        "effective_sample_size",
        "starving",
        "seed",
    )
    assert {k: first.card[k] for k in card_keys} == {k: second.card[k] for k in card_keys}
    assert (first.card["method"], second.card["method"]) == ("winnow", "keys")
    assert second.card["config"]["sha256"]
    second_list = tmp_path / "again.parquet"
    run_select(corpus, runs, "--keys", str(list_path), "--export", str(second_list))
    assert second_list.read_bytes() == list_path.read_bytes()


def test_a_list_works_on_another_machine_without_scores(
    world: tuple[Path, Path], tmp_path: Path
) -> None:
    corpus, runs = world
    list_path = tmp_path / "keys.parquet"
    first, _ = run_select(corpus, runs, "-n", "12", "--export", str(list_path))
    shutil.copytree(runs / "teachers", tmp_path / "other" / "teachers")
    second, _ = run_select(corpus, tmp_path / "other", "--keys", str(list_path))
    assert sorted(first.keys) == sorted(second.keys)


def test_missing_and_changed_images_are_counted_and_named(
    world: tuple[Path, Path], tmp_path: Path
) -> None:
    corpus, runs = world
    list_path = tmp_path / "keys.parquet"
    run_select(corpus, runs, "--method", "all", "--export", str(list_path))
    members = [(f"im{seed:05d}.jpg", corpora.encoded(seed)) for seed in range(25)]
    members[3] = ("im00003.jpg", corpora.encoded(999))
    corpora.tar_of(corpus / "a.tar", members)
    shards, output = run_select(corpus, runs, "--keys", str(list_path))
    assert "warning: 5 of the listed images are missing: a.tar: im00025; a.tar: im00026" in output
    assert "warning: 1 of the listed images are changed: a.tar: im00003" in output
    assert len(shards) == 34
    assert shards.card["num_requested"] == 40
    assert shards.card["missing"] == [f"a.tar: im{seed:05d}" for seed in range(25, 30)]
    assert shards.columns["weight"].mean() == pytest.approx(1, abs=1e-6)


def test_a_list_of_another_corpus_is_refused(world: tuple[Path, Path], tmp_path: Path) -> None:
    corpus, runs = world
    list_path = tmp_path / "keys.parquet"
    run_select(corpus, runs, "-n", "5", "--export", str(list_path))
    corpora.good_tar(tmp_path / "d.tar", 6)
    result = select(tmp_path / "d.tar", runs, "--keys", str(list_path))
    assert result.exit_code == 3
    assert "exported from another corpus" in result.output


def test_a_file_that_is_no_key_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.parquet"
    path.write_bytes(b"PAR1 no")
    with pytest.raises(ArtifactError, match="cannot be read"):
        key_list.read(path)
    pq.write_table(pa.table({"key": ["a"], "source": ["b"]}), path)
    with pytest.raises(ArtifactError, match="no column label, weight"):
        key_list.read(path)
    pq.write_table(key_list.schema().empty_table(), path)
    with pytest.raises(ArtifactError, match="it is empty"):
        key_list.read(path)
    row = {"key": "a", "source": "b", "label": 0, "weight": 1.0, "score": 0.0, "content_hash": 1}
    pq.write_table(pa.Table.from_pylist([row, row], schema=key_list.schema()), path)
    with pytest.raises(ArtifactError, match="an image twice"):
        key_list.read(path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--keys", "none.parquet"], "no such file"),
        (["--keys", "KEYS", "--method", "dfnd"], "leave out --method"),
        (["--score-set", "bn_distance=1", "--method", "dfnd"], "leave out --method dfnd"),
        (["--score-set", "entropi=1"], "Did you mean 'entropy'"),
    ],
)
def test_conflicting_flags_are_refused(tmp_path: Path, flags: list[str], message: str) -> None:
    (tmp_path / "k.parquet").write_bytes(b"")
    arguments = [str(tmp_path / "k.parquet") if flag == "KEYS" else flag for flag in flags]
    corpora.good_tar(tmp_path / "c.tar", 3)
    result = select(tmp_path / "c.tar", tmp_path / "runs", *arguments)
    assert result.exit_code == 1
    assert message in result.output


def test_score_set_equals_the_method_mix(tmp_path: Path) -> None:
    corpora.good_tar(tmp_path / "c.tar", 20)
    runs = tmp_path / "runs"
    by_flag, _ = run_select(
        tmp_path / "c.tar", runs, "-n", "8", "--score-set", "log_odds=1 bn_distance=-0.5"
    )
    mix = ["--method", "mix", "--set", "terms=log_odds=1,bn_distance=-0.5"]
    by_method, output = run_select(tmp_path / "c.tar", runs, "-n", "8", *mix)
    assert "shards: unchanged" in output
    assert by_flag.card["config"]["terms"] == by_method.card["config"]["terms"]
    assert by_flag.card["config"]["terms"] == "log_odds=1,bn_distance=-0.5"
    assert {"bn_distance", "energy", "outlier", "score", "scarcity"} < by_flag.columns.keys()


def test_a_list_cannot_bring_evaluation_images_back(
    world: tuple[Path, Path], tmp_path: Path
) -> None:
    corpus, runs = world
    list_path = tmp_path / "keys.parquet"
    first, _ = run_select(corpus, runs, "--method", "all", "--export", str(list_path))
    corpora.tar_of(tmp_path / "eval.tar", [("seen.jpg", first.read(0))])
    second, _ = run_select(
        corpus, runs, "--keys", str(list_path), "--exclude-eval", str(tmp_path / "eval.tar")
    )
    dropped = second.card["funnel"]["dropped"]["protected"]
    assert dropped >= 1
    assert second.card["num_requested"] == len(first) == len(second) + dropped
    assert first.keys[0] not in set(second.keys)
    assert second.columns["weight"].mean() == pytest.approx(1, abs=1e-4)
    single, _ = run_select(corpus, runs, "-n", "1", "--export", str(list_path))
    corpora.tar_of(tmp_path / "one.tar", [("seen.jpg", single.read(0))])
    result = select(
        corpus, runs, "--keys", str(list_path), "--exclude-eval", str(tmp_path / "one.tar")
    )
    assert result.exit_code == 3
    assert "--exclude-eval drops every listed image" in result.output
