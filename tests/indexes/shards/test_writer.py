"""Shards are byte-identical on every run and readable by webdataset; other plans are refused."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes.artifact import ArtifactError
from indexes.shards.reader import open_shards
from indexes.shards.verify import verify_shards
from indexes.shards.writer import ShardWriter, effective_sample_size
from tests.support.shards import CLASSES, write_shards

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="./\0"), min_size=1, max_size=150)


def test_webdataset_reads_all_samples(tmp_path: Path) -> None:
    write_shards(tmp_path)
    shards = open_shards(tmp_path)
    dataset = webdataset.WebDataset([str(tar) for tar in shards.tars], shardshuffle=False)
    rows = list(dataset.decode())
    assert [row["__key__"] for row in rows] == shards.keys.tolist()
    for index, row in enumerate(rows):
        assert row["json"]["label"] == shards.columns["label"][index]
        assert row["json"]["class"] == CLASSES[row["json"]["label"]]
        np.testing.assert_array_equal(row["logits.npy"], shards.logits[index])
        assert row["jpg"] == shards.read(index)


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    write_shards(tmp_path / "a")
    write_shards(tmp_path / "b")
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    with tarfile.open(tmp_path / "a" / "shard-000000.tar") as tar:
        assert {member.mtime for member in tar} == {0}


def test_a_shard_of_another_plan_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path)
    assert ShardWriter(tmp_path, "plan-a", CLASSES).has(1)
    with pytest.raises(ArtifactError, match=r"another run.*plan-a"):
        ShardWriter(tmp_path, "plan-b", CLASSES)


def test_an_unfinished_set_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / "card.json").unlink()
    with pytest.raises(ArtifactError, match=r"card\.json"):
        open_shards(tmp_path)
    (tmp_path / "shard-000001.parquet").unlink()
    writer = ShardWriter(tmp_path, "plan-a", CLASSES)
    assert writer.has(0)
    assert not writer.has(1)
    with pytest.raises(ArtifactError, match=r"shard-000001\.tar is incomplete"):
        writer.finish(2, {})


@settings(max_examples=40, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_every_key_survives_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str]
) -> None:
    directory = tmp_path_factory.mktemp("keys")
    writer = ShardWriter(directory, "p", ("a",))
    size = len(keys)
    columns = {"label": np.zeros(size, int), "weight": np.ones(size)}
    writer.write(0, keys=keys, exts=["png"] * size, images=[b"x"] * size, columns=columns,
                 logits=np.zeros((size, 1)))  # fmt: skip
    funnel = {"in": size, "dropped": {}, "kept": size}
    writer.finish(1, {"teacher": {"digest": "d", "input_size": 8}, "funnel": funnel})
    assert verify_shards(directory) == size


def test_effective_sample_size_matches_values_by_hand() -> None:
    assert effective_sample_size(np.ones(7)) == pytest.approx(7)
    assert effective_sample_size(np.array([1.0, 0, 0])) == pytest.approx(1)
