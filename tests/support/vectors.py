"""Small corpora of vectors, to test the index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.vectors.build import VectorPart, build_index
from indexes.vectors.index import Vectors, normalize_rows
from indexes.vectors.plan import IndexConfig

Array = npt.NDArray[Any]


def clustered(rows: int, dimension: int = 24, *, clusters: int = 40, seed: int = 0) -> Array:
    """Draw overlapping clusters, one after the other, float16 [rows, dimension]."""
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(clusters, dimension))
    cluster = np.sort(np.arange(rows) % clusters)
    return (centers[cluster] + 0.7 * generator.normal(size=(rows, dimension))).astype(np.float16)


def parts_of(rows: Array, size: int, *, prefix: str = "") -> list[VectorPart]:
    """Split `rows` into parts of `size` rows; the digest of a part is the hash of its content."""
    blocks = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [
        VectorPart(f"{prefix}{hash(block.tobytes())}", len(block), lambda block=block: block)
        for block in blocks
    ]


def make_index(
    directory: Path,
    rows: Array,
    size: int = 1000,
    *,
    previous: Path | None = None,
    body: dict[str, Any] | None = None,
    **settings: Any,
) -> Vectors:
    """Build an index of `rows` with `settings`."""
    config = IndexConfig(**settings)
    build_index(directory, parts_of(rows, size), config, previous=previous, body=body)
    return Vectors(directory)


def nearest(queries: Array, rows: Array, k: int) -> tuple[Array, Array]:
    """Return (similarity, row) of the k nearest rows, by a matrix product."""
    similarity = normalize_rows(queries) @ normalize_rows(rows).T
    nearest_rows = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarity, nearest_rows, 1), nearest_rows


def recall(rows: Array, exact: Array) -> float:
    """Return the share of `exact` [q, k] that is in `rows` [q, k']."""
    return float((exact[:, :, None] == rows[:, None, :]).any(2).mean())
