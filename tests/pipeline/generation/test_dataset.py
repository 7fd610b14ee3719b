"""The images that the generator reads from shards, and the input that the teacher gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from indexes.artifact import ArtifactError
from indexes.images.decode import Geometry, load_view, to_unit
from pipeline.generation.dataset import read_images, teacher_view
from tests.support.corpora import encoded, picture
from tests.support.generators import (
    SIDE,
    World,
    color_teacher,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("side", "size", "frac"), [(32, 32, 1.0), (16, 32, 0.875), (64, 24, 0.8)])
def test_the_teacher_gets_the_pixels_that_the_file_decodes_to(
    interpolation: str, side: int, size: int, frac: float
) -> None:
    geometry = Geometry(size, frac, interpolation)
    expected, _, _ = load_view(encoded(3, form="PNG", side=side), geometry)
    image = to_unit(torch.from_numpy(np.array(picture(3, side=side)))[None])
    actual = teacher_view(image, geometry)[0].permute(1, 2, 0) * 255
    np.testing.assert_allclose(actual.numpy(), expected, atol=1.1)


def test_shards_of_another_teacher_are_refused(world: World, tmp_path: Path) -> None:
    other_teacher = color_teacher(tmp_path / "other", seed=6)
    with pytest.raises(ArtifactError, match="another teacher"):
        read_images(world[0], other_teacher, SIDE, "cpu")
