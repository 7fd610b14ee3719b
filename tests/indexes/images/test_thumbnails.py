"""Thumbs have the right size and planes, and distinguish images."""

from __future__ import annotations

import numpy as np

from indexes.images.thumbnails import SIDE, WIDTH, planes, thumb
from tests.support.lakes import smooth


def test_a_thumb_holds_luma_and_chroma_of_half_the_width() -> None:
    gray = thumb(np.full((50, 70, 3), 90, np.uint8))
    assert gray.shape == (WIDTH,) == (600,)
    luma, chroma = planes(gray[None])
    assert luma.shape == (1, SIDE, SIDE)
    assert chroma.shape == (1, 2, SIDE // 2, SIDE // 2)
    assert set(luma.ravel()) == {90}
    assert set(chroma.ravel()) == {128}


def test_a_thumb_covers_the_whole_image() -> None:
    pixels = np.zeros((40, 400, 3), np.uint8)
    pixels[:, 200:] = 255
    luma, _ = planes(thumb(pixels)[None])
    assert luma[0, :, : SIDE // 2 - 1].max() == 0
    assert luma[0, :, SIDE // 2 + 1 :].min() == 255


def test_a_resized_copy_has_nearly_the_same_thumb() -> None:
    photo = smooth(300, 200)
    large, small = (thumb(np.asarray(image)) for image in (photo, photo.resize((120, 80))))
    assert np.abs(large.astype(int) - small).mean() < 2
