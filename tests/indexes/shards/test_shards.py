"""The contract, written and read back: by ours, by stock webdataset, and after every damage."""

from __future__ import annotations

import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes.artifact import ArtifactError
from indexes.shards.reader import open_shards
from indexes.shards.verify import verify_shards
from indexes.shards.writer import ShardWriter, effective_sample_size

CLASSES = ("crane", "boat", "crane")  # names may repeat, as ImageNet's do


def write(directory: Path, sizes: tuple[int, ...] = (3, 2), top: int | None = None) -> None:
    writer = ShardWriter(directory, "plan-a", CLASSES)
    generator = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        keys = [f"deep.dir/{number}-{row}" for row in range(size)]
        writer.write(
            number,
            keys=keys,
            exts=["jpg"] * size,
            images=[bytes([number, row]) * (50 * row + 1) for row in range(size)],
            columns={
                "label": np.arange(size) % 3,
                "weight": np.linspace(0.5, 1.5, size),
                "log_odds": generator.normal(size=size),
            },
            logits=generator.normal(size=(size, top or 3)),
            logit_classes=np.tile(np.arange(top), (size, 1)) if top else None,
            sources=[f"part-{row}.tar" for row in range(size)],
        )
    total = sum(sizes)
    body: dict[str, Any] = {
        "teacher": {"digest": "t" * 64, "input_size": 32},
        "funnel": {"in": total + 3, "dropped": {"corrupt": 3}, "kept": total},
    }
    writer.finish(len(sizes), body)


@pytest.mark.parametrize("top", [None, 2])
def test_round_trip(tmp_path: Path, top: int | None) -> None:
    write(tmp_path, top=top)
    shards = pickle.loads(pickle.dumps(open_shards(tmp_path)))
    assert len(shards) == 5
    assert shards.keys.tolist()[3] == "deep.dir/1-0"
    assert shards.read(2) == bytes([0, 2]) * 101
    assert shards.read(4) == bytes([1, 1]) * 51
    assert shards.sources.tolist()[:2] == ["part-0.tar", "part-1.tar"]
    assert shards.columns["label"].tolist() == [0, 1, 2, 0, 1]
    assert shards.logits.shape == (5, top or 3)
    assert shards.logits.dtype == np.float16
    assert (shards.logit_classes is None) == (top is None)
    assert shards.card["class_histogram"] == [2, 2, 1]
    assert shards.classes == CLASSES
    assert verify_shards(tmp_path) == 5


def test_stock_webdataset_reads_all(tmp_path: Path) -> None:
    write(tmp_path)
    shards = open_shards(tmp_path)
    dataset = webdataset.WebDataset([str(tar) for tar in shards.tars], shardshuffle=False)
    rows = list(dataset.decode())
    assert [row["__key__"] for row in rows] == shards.keys.tolist()
    for index, row in enumerate(rows):
        assert row["json"]["label"] == shards.columns["label"][index]
        assert row["json"]["class"] == CLASSES[row["json"]["label"]]
        np.testing.assert_array_equal(row["logits.npy"], shards.logits[index])
        assert row["jpg"] == shards.read(index)


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    for one in sorted((tmp_path / "a").iterdir()):
        assert one.read_bytes() == (tmp_path / "b" / one.name).read_bytes(), one.name
    with tarfile.open(tmp_path / "a" / "shard-000000.tar") as tar:
        assert {member.mtime for member in tar} == {0}


def test_a_shard_of_another_plan_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    assert ShardWriter(tmp_path, "plan-a", CLASSES).has(1)
    with pytest.raises(ArtifactError, match=r"another run.*plan-a"):
        ShardWriter(tmp_path, "plan-b", CLASSES)


def test_an_unfinished_set_is_not_whole(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "card.json").unlink()
    with pytest.raises(ArtifactError, match=r"card\.json"):
        open_shards(tmp_path)
    (tmp_path / "shard-000001.parquet").unlink()
    writer = ShardWriter(tmp_path, "plan-a", CLASSES)
    assert writer.has(0)
    assert not writer.has(1)
    with pytest.raises(ArtifactError, match=r"shard-000001\.tar is not whole"):
        writer.finish(2, {})


@pytest.mark.parametrize("damage", ["cut", "missing", "flipped", "sidecar", "card"])
def test_damage_is_found(tmp_path: Path, damage: str) -> None:
    write(tmp_path)
    tar = tmp_path / "shard-000001.tar"
    data = tar.read_bytes()
    if damage == "cut":
        tar.write_bytes(data[:-1024])
    elif damage == "missing":
        tar.unlink()
    elif damage == "flipped":
        tar.write_bytes(data[:600] + bytes([data[600] ^ 1]) + data[601:])
    elif damage == "sidecar":
        tar.with_suffix(".parquet").unlink()
    else:
        card = json.loads((tmp_path / "card.json").read_text())
        card["funnel"]["dropped"]["corrupt"] = 2
        (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(ArtifactError):
        verify_shards(tmp_path)


def test_shards_of_another_teacher_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    assert len(open_shards(tmp_path, teacher_digest="t" * 64)) == 5
    with pytest.raises(ArtifactError, match="labeled by another teacher"):
        open_shards(tmp_path, teacher_digest="u" * 64)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="./\0"), min_size=1, max_size=150)


@settings(max_examples=40, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_any_key_survives(tmp_path_factory: pytest.TempPathFactory, keys: list[str]) -> None:
    directory = tmp_path_factory.mktemp("keys")
    writer = ShardWriter(directory, "p", ("a",))
    size = len(keys)
    columns = {"label": np.zeros(size, int), "weight": np.ones(size)}
    writer.write(0, keys=keys, exts=["png"] * size, images=[b"x"] * size, columns=columns,
                 logits=np.zeros((size, 1)))  # fmt: skip
    funnel = {"in": size, "dropped": {}, "kept": size}
    writer.finish(1, {"teacher": {"digest": "d", "input_size": 8}, "funnel": funnel})
    assert verify_shards(directory) == size


def test_effective_sample_size() -> None:
    assert effective_sample_size(np.ones(7)) == pytest.approx(7)
    assert effective_sample_size(np.array([1.0, 0, 0])) == pytest.approx(1)
