"""Embedded corpora: ordered blocks, rows split by block, manifests, and damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexes import embeddings
from indexes.artifact import ArtifactError
from indexes.embeddings import Embeddings, open_embeddings
from tests.support.pools import make_pool


def embedded(directory: Path) -> Embeddings:
    label = np.arange(10) % 3
    make_pool(directory, label=label, log_odds=np.arange(10.0), blocks=(4, 1, 5))
    return open_embeddings(directory / "embeddings")


def test_blocks_cover_the_rows_in_order(tmp_path: Path) -> None:
    corpus = embedded(tmp_path)
    assert len(corpus) == 10
    assert [(block.start, block.stop, block.source) for block in corpus.blocks] == [
        (0, 4, "p0"),
        (4, 5, "p1"),
        (5, 10, "p2"),
    ]
    log_odds = np.concatenate([block.columns("log_odds")[0] for block in corpus.blocks])
    np.testing.assert_array_equal(log_odds, np.arange(10))
    assert corpus.blocks[0].matrix("features").dtype == np.float16
    assert corpus.blocks[0].logit_classes is None


def test_rows_are_split_and_named_by_block(tmp_path: Path) -> None:
    corpus = embedded(tmp_path)
    split = [(block.part, local.tolist()) for block, local in corpus.by_block(np.array([3, 5, 9]))]
    assert split == [(0, [3]), (2, [0, 4])]
    assert corpus.keys_of(np.array([9, 3, 9])) == [("k9", "p2"), ("k3", "p0"), ("k9", "p2")]


def test_a_damaged_matrix_is_named(tmp_path: Path) -> None:
    block = embedded(tmp_path).blocks[0]
    path = block.stem.with_name(f"{block.stem.name}.features.npy")
    np.save(path, np.zeros((3, 4), np.float16))
    with pytest.raises(ArtifactError, match="has 3 rows, not 4"):
        block.matrix("features")
    path.write_bytes(b"rubbish")
    with pytest.raises(ArtifactError, match=r"features\.npy is damaged"):
        block.matrix("features")


def test_a_part_is_linked_under_another_number(tmp_path: Path) -> None:
    corpus = embedded(tmp_path)
    directory = tmp_path / "other"
    directory.mkdir()
    embeddings.link_part(corpus.directory, 2, directory, 0)
    with pytest.raises(ArtifactError, match="1 parts are not embedded yet"):
        embeddings.finish(directory, 2, {})
    embeddings.finish(directory, 1, {})
    assert len(open_embeddings(directory)) == 5
    assert open_embeddings(directory).blocks[0].strings("key")[0] == "k5"
    assert [number for number, _ in embeddings.part_manifests(directory)] == [0]
