"""Exactly the planted near duplicates are found, and the best copy is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from pipeline.dedup.near import (
    GROUP_THRESHOLD,
    NEAR_THRESHOLD,
    cluster,
    components,
    pair_similarity,
)
from tests.support import scenes
from tests.support.duplicates import (
    dedup_reasons,
    pool_of_images,
    thumbs_of,
)

Array = npt.NDArray[Any]


@pytest.mark.parametrize("side", [32, 96, 260])
def test_exactly_the_planted_copies_are_found(tmp_path: Path, side: int) -> None:
    originals = [scenes.scene(seed, side) for seed in range(60)]
    images = [scenes.encoded(image, 90) for image in originals]
    for kind in scenes.KINDS:
        for seed in range(20):
            images.append(scenes.copy_of(originals[seed], kind, seed))
    reason = dedup_reasons(pool_of_images(tmp_path, images), tmp_path / "d")
    assert (reason[20:60] == 0).all(), "unique images stay"
    original_of = np.concatenate([np.arange(60), np.tile(np.arange(20), len(scenes.KINDS))])
    num_kept = np.bincount(original_of[reason == 0], minlength=60)
    assert (num_kept >= 1).all(), "one image of each group stays"
    planted = len(scenes.KINDS) * 20
    assert (reason == 2).sum() >= 0.97 * planted


def test_the_best_of_a_group_is_kept(tmp_path: Path) -> None:
    large, small = scenes.scene(1, 64), scenes.scene(2, 48)
    images = [
        scenes.encoded(scenes.scaled(large, 0.6)),  # smaller
        scenes.encoded(large, 80),
        scenes.encoded(large, 95),  # as large and more confident
        scenes.encoded(small, 80),
        # As large and as confident, with the lowest key hash: hashes fall with the row.
        scenes.encoded(small, 70),
        scenes.encoded(scenes.scene(3)),
    ]
    log_odds = np.array([9, 1, 2, 5, 5, 0], np.float32)
    reason = dedup_reasons(pool_of_images(tmp_path, images, log_odds=log_odds), tmp_path / "d")
    assert reason.tolist() == [2, 2, 0, 2, 0, 0]
    table = pq.read_table(tmp_path / "d" / "pairs.parquet").to_pydict()
    kept_key_of = dict(zip(table["key"], table["kept_key"], strict=True))
    assert kept_key_of == {"k0": "k2", "k1": "k2", "k3": "k4"}
    assert set(table["reason"]) == {"near_duplicate"}
    assert min(table["similarity"]) > GROUP_THRESHOLD


def test_a_chain_is_not_one_group() -> None:
    # 0-1-2-...-9: each image is similar to the next one, and to no other.
    pairs = np.array([(row, row + 1) for row in range(9)])

    class Columns:
        def column(self, name: str) -> Array:
            return np.zeros(10) if name == "log_odds" else np.arange(10)

    def similarity(first: Array, second: Array) -> Array:
        return (np.abs(first - second) <= 1).astype(np.float32)

    pool: Any = Columns()
    groups = cluster(pool, pairs, similarity)
    assert sorted(groups.rows.tolist()) == [0, 2, 4, 6, 8]
    assert (np.abs(groups.rows - groups.kept) == 1).all()


def test_components_equal_those_of_label_propagation() -> None:
    draw = np.random.default_rng(0)
    pairs = draw.integers(0, 200, (130, 2))
    rank = draw.permutation(200)
    lowest = rank.copy()
    for _ in range(200):
        for first, second in pairs:
            lowest[first] = lowest[second] = min(lowest[first], lowest[second])
    np.testing.assert_array_equal(components(200, pairs, rank), lowest)


def test_more_copies_than_neighbors_form_one_group(tmp_path: Path) -> None:
    original = scenes.scene(5, 64)
    images = [scenes.copy_of(original, "reencode", seed) for seed in range(60)]
    images += [scenes.encoded(scenes.cropped(original, 0.04, seed), 70) for seed in range(60)]
    images += [scenes.encoded(scenes.scene(seed)) for seed in range(100, 140)]
    reason = dedup_reasons(pool_of_images(tmp_path, images), tmp_path / "d")
    assert (reason[:120] == 0).sum() == 1
    assert (reason[120:] == 0).all()


def test_similarities_do_not_depend_on_order_and_chunk_size() -> None:
    originals = [scenes.scene(seed) for seed in range(20)]
    images = [scenes.encoded(image) for image in originals]
    images += [scenes.copy_of(originals[seed], "all", seed) for seed in range(20)]
    thumbs, first, second = thumbs_of(images), np.arange(20), np.arange(20, 40)
    full = pair_similarity(thumbs, "cpu", first, second)
    chunked = pair_similarity(thumbs, "cpu", second, first, chunk_rows=8)
    np.testing.assert_allclose(full, chunked, atol=1e-5)
    assert (full >= NEAR_THRESHOLD).mean() > 0.9
