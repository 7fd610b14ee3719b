"""Vectors: exact when small, close above the budget, k-means finds modes, damage is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexes import vectors
from indexes.artefact import ArtefactError

ROWS = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float16)


def build(directory: Path, budget_bytes: int) -> vectors.Vectors:
    wanted = vectors.training_rows(3000, 16, budget_bytes)
    sample = vectors.random_rows([ROWS[:1000], ROWS[1000:]], wanted, 3000, seed=0)
    blocks = [ROWS[:1700], ROWS[1700:]]
    vectors.build(directory, blocks, sample, 3000, budget_bytes=budget_bytes)
    return vectors.Vectors(directory)


def nearest(queries: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(vectors.unit(queries) @ vectors.unit(ROWS).T), axis=1)[:, :k]


def test_exact_when_it_fits(tmp_path: Path) -> None:
    index = build(tmp_path, 1 << 20)
    assert index.card["factory"] == "SQfp16"
    similarity, rows = index.search(ROWS[:20], 5)
    assert (rows[:, 0] == np.arange(20)).all()
    np.testing.assert_allclose(similarity[:, 0], 1, atol=2e-3)
    overlap = [len(set(a) & set(b)) for a, b in zip(rows, nearest(ROWS[:20], 5), strict=True)]
    assert np.mean(overlap) > 4.9


def test_inverted_lists_above_the_budget(tmp_path: Path) -> None:
    index = build(tmp_path, 1 << 10)
    assert index.card["factory"].startswith("IVF")
    _, rows = index.search(ROWS[:50], 10)
    overlap = [len(set(a) & set(b)) for a, b in zip(rows, nearest(ROWS[:50], 10), strict=True)]
    assert np.mean(overlap) > 6


def test_the_training_sample_is_not_the_first_rows() -> None:
    first, second = np.zeros((500, 2)), np.ones((500, 2))
    sample = vectors.random_rows([first, second], 100, 1000, seed=3)
    assert 50 < len(sample) < 150
    assert 0.3 < sample.mean() < 0.7


def test_kmeans_finds_the_modes() -> None:
    modes = vectors.unit(np.eye(3))
    rows = np.repeat(modes, 30, axis=0)
    rows += np.random.default_rng(0).normal(scale=0.02, size=rows.shape).astype(np.float32)
    found = vectors.kmeans(rows, 3, seed=1)
    np.testing.assert_allclose((modes @ found.T).max(axis=1), 1, atol=1e-3)


def test_wrong_width_count_and_damage_say_so(tmp_path: Path) -> None:
    index = build(tmp_path, 1 << 20)
    with pytest.raises(ValueError, match="width 3, the index 16"):
        index.search(np.zeros((1, 3), np.float32), 1)
    with pytest.raises(ArtefactError, match="1000 vectors were added, not 3000"):
        vectors.build(tmp_path / "short", [ROWS[:1000]], ROWS[:100], 3000)
    (tmp_path / "index.faiss").write_bytes(b"nonsense")
    with pytest.raises(ArtefactError, match="damaged"):
        vectors.Vectors(tmp_path)
