"""The similarity of thumbs: colors, mirroring and empty images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from indexes.images.decode import probe_image
from pipeline.dedup.similarity import image_similarity, signatures
from tests.support import scenes
from tests.support.duplicates import (
    VIEW,
    png,
    thumbs_of,
)


def test_colors_distinguish_images() -> None:
    red = np.zeros((32, 32, 3), np.uint8)
    red[8:20, 8:20, 0] = 220
    blue = red[:, :, ::-1].copy()
    dark = (red * 0.4).astype(np.uint8)
    ring = thumbs_of([scenes.encoded(Image.fromarray(p), 95) for p in (red, blue, dark)])
    assert image_similarity(ring[[0]], ring[[0]])[0] == pytest.approx(1, abs=1e-3)
    assert image_similarity(ring[[0, 0]], ring[[1, 2]]).tolist() == [0, 0]


def test_a_mirrored_image_has_the_same_signature() -> None:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (5, 40, 40, 3), dtype=np.uint8)
    thumb_pair = [
        np.stack([probe_image(png(image), VIEW)[1] for image in images])
        for images in (pixels, pixels[:, :, ::-1])
    ]
    upright, mirrored = (signatures(thumbs) for thumbs in thumb_pair)
    np.testing.assert_allclose((upright * mirrored).sum(1), 1, atol=2e-3)
    assert image_similarity(*thumb_pair).min() > 0.99
    flat = np.full((1, thumb_pair[0].shape[1]), 128, np.uint8)
    assert not signatures(flat).any(), "an empty image is similar to no image"


def test_the_batch_size_does_not_change_the_result() -> None:
    draw = np.random.default_rng(0)
    images = [scenes.encoded(scenes.scene(seed)) for seed in range(10)]
    copies = [scenes.copy_of(scenes.scene(seed), "all", seed) for seed in range(10)]
    first, second = thumbs_of(images), thumbs_of(copies)
    order = draw.permutation(10)
    full = image_similarity(first, second)
    batched = image_similarity(first[order], second[order], batch_size=3)
    np.testing.assert_allclose(full[order], batched, atol=1e-5)
