"""In the index of signatures, the copies of an image are its nearest neighbors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.dedup.signatures import CANDIDATE_THRESHOLD, index_pool, index_thumbs
from tests.support import scenes
from tests.support.duplicates import pool_of_images, thumbs_of


def test_copies_are_the_nearest_candidates(tmp_path: Path) -> None:
    images = [scenes.encoded(scenes.scene(seed)) for seed in range(60)]
    images += [scenes.copy_of(scenes.scene(seed), "reencode", seed) for seed in range(20)]
    pool = pool_of_images(tmp_path / "pool", images)
    index = index_pool(pool, tmp_path / "a")
    similarity, rows = (
        np.concatenate(parts) for parts in zip(*index.neighbors(pool.blocks, 1), strict=True)
    )
    np.testing.assert_array_equal(rows[60:, 0], np.arange(20))
    assert (similarity[60:, 0] > CANDIDATE_THRESHOLD).all()
    small_index = index_thumbs(thumbs_of(images[:30]), tmp_path / "b")
    assert small_index.card["num_vectors"] == 30
