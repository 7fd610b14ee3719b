"""Vectors: a standard FAISS file, search, k-means, and damaged files."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from indexes.artifact import ArtifactError
from indexes.vectors.index import Vectors, normalize_rows, train_kmeans
from tests.support.vectors import clustered, make_index, nearest, recall

ROWS = clustered(3000)


def test_a_small_index_is_exact(tmp_path: Path) -> None:
    index = make_index(tmp_path, ROWS)
    assert (index.card["factory"], index.card["nprobe"]) == ("IVF1,SQfp16", 1)
    assert index.card["recall_at_10"] > 0.999
    similarity, rows = index.search(ROWS[:50], 10)
    np.testing.assert_allclose(similarity[:, 0], 1, atol=2e-3)
    assert recall(rows, nearest(ROWS[:50], ROWS, 10)[1]) > 0.99


def test_the_file_is_a_standard_faiss_index(tmp_path: Path) -> None:
    index = make_index(tmp_path, ROWS, exact_rows=100)
    stock = faiss.read_index(str(tmp_path / "index.faiss"))
    assert stock.ntotal == len(ROWS)
    stock.nprobe = index.card["nprobe"]
    similarity, rows = stock.search(normalize_rows(ROWS[::100]), 5)
    np.testing.assert_array_equal(index.search(ROWS[::100], 5)[0], similarity)
    np.testing.assert_array_equal(index.search(ROWS[::100], 5)[1], rows)


def test_kmeans_finds_the_modes() -> None:
    modes = normalize_rows(np.eye(3))
    rows = np.repeat(modes, 30, axis=0)
    rows += np.random.default_rng(0).normal(scale=0.02, size=rows.shape).astype(np.float32)
    centroids = train_kmeans(rows, 3, seed=1)
    np.testing.assert_allclose((modes @ centroids.T).max(axis=1), 1, atol=1e-3)


def test_a_wrong_width_and_damage_raise(tmp_path: Path) -> None:
    index = make_index(tmp_path, ROWS)
    with pytest.raises(ValueError, match="width 3, but the index has width 24"):
        index.search(np.zeros((1, 3), np.float32), 1)
    path = tmp_path / "index.faiss"
    intact = path.read_bytes()
    path.write_bytes(intact[:-1])
    with pytest.raises(ArtifactError, match=r"index\.faiss is damaged"):
        Vectors(tmp_path)
    path.write_bytes(b"nonsense" + intact[8:])
    with pytest.raises(ArtifactError, match=r"index\.faiss is damaged"):
        Vectors(tmp_path)
