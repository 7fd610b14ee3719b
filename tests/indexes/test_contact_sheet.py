"""The contact sheet: its formats, its grid, and images that cannot be decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexes.contact_sheet import CAPTION, GAP, SIDE, check, draw
from tests.support.corpora import encoded


def test_the_suffix_selects_the_format(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.gif: name a file that ends in one of \.jpg"):
        check(Path("x.gif"))
    for name, kind in (("a.JPG", "JPEG"), ("b.png", "PNG")):
        draw(tmp_path / name, ["words"], [[]])
        with Image.open(tmp_path / name) as image:
            assert image.format == kind
            assert image.size == (SIDE + 2 * GAP, SIDE + CAPTION + 2 * GAP)


def test_a_damaged_image_leaves_its_cell_empty(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", [b"rubbish"], [[(encoded(1), "one"), (b"", "two")]])
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image)
    step = SIDE + GAP
    cells = [pixels[GAP : GAP + SIDE, GAP + n * step : GAP + n * step + SIDE] for n in range(3)]
    assert [bool((cell == 255).all()) for cell in cells] == [True, False, True]
