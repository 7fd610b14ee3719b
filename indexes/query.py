"""Query: the images of an embedded corpus that lie nearest to given images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from indexes import artefact, devices, teachers
from indexes.artefact import ArtefactError
from indexes.embeddings import Embeddings, open_embeddings
from indexes.images import BadImage, load, unit
from indexes.vectors import Vectors


def latest(runs: Path) -> Path:
    """The index under runs/vectors that was written last; ArtefactError when there is none."""
    found = [place.parent for place in runs.glob(f"vectors/*/{artefact.CARD}")]
    if not found:
        raise ArtefactError(f"no index under {runs}/vectors: winnow select makes one")
    return max(found, key=lambda place: (place / artefact.CARD).stat().st_mtime_ns)


def query(
    images: Sequence[Path], index: Path, runs: Path, k: int
) -> Iterator[list[tuple[float, str, str]]]:
    """For every image its k nearest as (similarity, key, corpus part), nearest first.

    Images are embedded by the very teacher that embedded the corpus, found by its digest.
    """
    import torch

    vectors = Vectors(index)
    embedded = open_embeddings(runs / "embeddings" / vectors.card["embeddings"])
    teacher = teachers.open(teachers.by_digest(embedded.card["teacher"]["digest"], runs))
    rows = []
    for path in images:
        try:
            rows.append(load(path.read_bytes(), teacher.geometry)[0])
        except BadImage as error:
            raise ValueError(f"{path}: {error}") from None
    pixels = unit(torch.from_numpy(np.stack(rows)))
    with devices.autocast("cpu"):
        _, features, _ = teacher(pixels)
    similarity, nearest = vectors.search(features.numpy(), k)
    for values, neighbours in zip(similarity.tolist(), nearest.tolist(), strict=True):
        found = [(v, n) for v, n in zip(values, neighbours, strict=True) if n >= 0]
        yield [(value, *name(embedded, row)) for value, row in found]


def name(embedded: Embeddings, row: int) -> tuple[str, str]:
    """(key, corpus part) of a row."""
    for block in embedded.blocks:
        if block.start <= row < block.stop:
            return block.strings("key")[row - block.start], block.source
    raise IndexError(row)
