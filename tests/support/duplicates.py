"""Pools of planted duplicates, and the drop reasons that de-duplication gives them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from indexes import artifact
from indexes.images.decode import Geometry, probe_image
from pipeline.corpus import open_corpus
from pipeline.dedup.run import DedupSetup, Mode, dedup_rows
from pipeline.pool import Pool
from tests.support import corpora, scenes
from tests.support.pools import make_pool

Array = npt.NDArray[Any]
VIEW = Geometry(32)


def thumbs_of(images: list[bytes]) -> Array:
    """Return the thumb of each image."""
    return np.stack([probe_image(data, VIEW)[1] for data in images])


def pool_of_images(directory: Path, images: list[bytes], **more: Any) -> Pool:
    """Make a pool of the images, in parts of 50."""
    sides = np.array([probe_image(data, VIEW)[2] for data in images])
    total = len(images)
    blocks = (50,) * (total // 50) + ((total % 50,) if total % 50 else ())
    content = np.array([artifact.hash64(data) >> 8 for data in images])
    return make_pool(
        directory,
        label=np.zeros(total, int),
        content=content,
        blocks=blocks,
        matrices={"thumb": thumbs_of(images)},
        columns={"width": sides, "height": sides},
        **{"log_odds": np.arange(total, dtype=np.float32), **more},
    )


def dedup_reasons(
    pool: Pool, directory: Path, mode: Mode = "near", exclude_eval: str | None = None
) -> Array:
    """Return the column `reason` of a pool."""
    evaluation = open_corpus(exclude_eval) if exclude_eval else None
    setup = DedupSetup(mode=mode, evaluation=evaluation, geometry=VIEW)
    dedup_rows(pool, directory, setup, digest="d")
    reason: Array = np.load(directory / "reason.npy", allow_pickle=False)
    return reason


def png(pixels: Array) -> bytes:
    """Encode pixels uint8 [H, W, 3] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()


def corpus_with_copies(directory: Path) -> None:
    """Write two tars of 30 scenes, six edited copies and one exact copy."""
    members = [(f"s{seed:02d}.jpg", scenes.encoded(scenes.scene(seed))) for seed in range(30)]
    members += [(f"c{n:02d}.jpg", scenes.copy_of(scenes.scene(n), "all", n)) for n in range(6)]
    members += [("twin.jpg", members[9][1])]
    for number in range(2):
        corpora.tar_of(directory / f"{number}.tar", members[number::2])
