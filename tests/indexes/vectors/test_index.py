"""Vectors: search, all-pairs neighbors against brute force, k-means, damage named."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from indexes.artifact import ArtifactError
from indexes.vectors import build, knn
from indexes.vectors.index import Vectors, normalize_rows, train_kmeans
from tests.support.vectors import built, clustered, nearest, recall

ROWS = clustered(3000)


@pytest.fixture
def many_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inverted lists although the corpus is small."""
    monkeypatch.setattr(build, "EXACT_ROWS", 100)


def test_exact_when_small(tmp_path: Path) -> None:
    index = built(tmp_path, ROWS)
    assert (index.card["factory"], index.card["nprobe"]) == ("IVF1,SQfp16", 1)
    assert index.card["recall_at_10"] > 0.999
    similarity, rows = index.search(ROWS[:50], 10)
    np.testing.assert_allclose(similarity[:, 0], 1, atol=2e-3)
    assert recall(rows, nearest(ROWS[:50], ROWS, 10)[1]) > 0.99


@pytest.mark.usefixtures("many_lists")
def test_the_file_is_a_stock_faiss_index(tmp_path: Path) -> None:
    index = built(tmp_path, ROWS)
    stock = faiss.read_index(str(tmp_path / "index.faiss"))
    assert stock.ntotal == len(ROWS)
    stock.nprobe = index.card["nprobe"]
    found = stock.search(normalize_rows(ROWS[::100]), 5)
    for ours, theirs in zip(index.search(ROWS[::100], 5), found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.usefixtures("many_lists")
@pytest.mark.parametrize("budget_bytes", [4 << 30, 1 << 16])
@pytest.mark.parametrize("tile_rows", [300, 32_768])
def test_neighbors_are_those_of_brute_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget_bytes: int, tile_rows: int
) -> None:
    monkeypatch.setattr(knn, "MOST_TILE_ROWS", tile_rows)
    monkeypatch.setattr(knn, "LIST_ROWS", 64)
    monkeypatch.setattr(knn, "MOST_WAITING", 5000)
    rows = ROWS.copy()
    noise = np.random.default_rng(1).normal(scale=0.05, size=(100, rows.shape[1]))
    rows[2500:2600] = rows[:100] + noise  # near duplicates
    index = built(tmp_path, rows, budget_bytes=budget_bytes)
    assert index.card["factory"].endswith("SQfp16" if budget_bytes > 1 << 20 else "SQ8")
    blocks = [rows[:10], rows[10:2000], rows[2000:2000], rows[2000:]]
    answers = list(index.neighbors(blocks, 5))
    assert [len(values) for values, _ in answers] == [10, 1990, 0, 1000]
    similarity, found = (np.concatenate(some) for some in zip(*answers, strict=True))
    exact, near = nearest(rows, rows, 6)
    own = np.arange(len(rows))[:, None]
    assert not (found == own).any()
    assert (np.diff(similarity, axis=1) <= 0).all()
    others = near[near != own].reshape(len(rows), 5)
    assert recall(found, others) > (0.95 if budget_bytes > 1 << 20 else 0.85)
    assert ((found[:100] == np.arange(2500, 2600)[:, None]).any(1)).all(), "every near duplicate"
    near_first = np.abs(similarity[:, 0] - exact[:, 1]) < 0.01
    assert near_first.mean() > 0.9
    assert not list(tmp_path.glob("*tmp*"))


def test_neighbors_of_few_and_of_equal_rows(tmp_path: Path) -> None:
    few = built(tmp_path / "few", ROWS[:3], size=2)
    similarity, rows = next(few.neighbors([range(3)], 4))
    assert sorted(rows[0].tolist()) == [-1, -1, 1, 2]
    assert np.isneginf(similarity[:, 2:]).all()
    equal = built(tmp_path / "equal", np.ones((400, 8), np.float16))
    similarity, rows = next(equal.neighbors([range(400)], 3))
    assert not (rows == np.arange(400)[:, None]).any()
    np.testing.assert_allclose(similarity, 1, atol=2e-3)


def test_kmeans_finds_the_modes() -> None:
    modes = normalize_rows(np.eye(3))
    rows = np.repeat(modes, 30, axis=0)
    rows += np.random.default_rng(0).normal(scale=0.02, size=rows.shape).astype(np.float32)
    found = train_kmeans(rows, 3, seed=1)
    np.testing.assert_allclose((modes @ found.T).max(axis=1), 1, atol=1e-3)


def test_wrong_width_and_damage_say_so(tmp_path: Path) -> None:
    index = built(tmp_path, ROWS)
    with pytest.raises(ValueError, match="width 3, the index 24"):
        index.search(np.zeros((1, 3), np.float32), 1)
    path = tmp_path / "index.faiss"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match=r"index\.faiss is damaged"):
        Vectors(tmp_path)
    path.write_bytes(b"nonsense" + whole[8:])
    with pytest.raises(ArtifactError, match=r"index\.faiss is damaged"):
        Vectors(tmp_path)
