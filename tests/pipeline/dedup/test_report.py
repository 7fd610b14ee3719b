"""The report of duplicates."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import scenes
from tests.support.duplicates import (
    dedup_reasons,
    pool_of_images,
)


def test_an_implausible_share_gives_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = scenes.scene(1)
    images = [scenes.encoded(image, 50 + at) for at in range(9)]
    pool = pool_of_images(tmp_path, [*images, scenes.encoded(scenes.scene(2))])
    dedup_reasons(pool, tmp_path / "d")
    assert (
        "80% of the images are near duplicates; the largest group has 9 images and keeps k8"
        in caplog.text
    )
