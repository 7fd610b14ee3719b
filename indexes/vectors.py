"""The one door to FAISS: build, search, k-means. Cosine similarity throughout.

Exact while N x D half floats fit the stated memory budget; above it inverted lists over 8-bit
codes, which take half of that memory. k-means runs on the CPU: the same centroids everywhere.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes import artefact
from indexes.artefact import ArtefactError

Array = npt.NDArray[Any]
TRAIN_ROWS_PER_LIST = 64


def _faiss() -> Any:
    import faiss

    return faiss


def unit(vectors: Array) -> Array:
    """Rows [n, D] scaled to length 1, contiguous float32."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    scaled: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return scaled


def factory(num_vectors: int, dimension: int, budget_bytes: int) -> str:
    """The FAISS factory string: exact half floats when they fit the budget, else IVF over SQ8."""
    if num_vectors * dimension * 2 <= budget_bytes:
        return "SQfp16"
    lists = int(np.clip(4 * np.sqrt(num_vectors), 64, 1 << 18))
    return f"IVF{lists},SQ8"


def build(
    directory: str | Path,
    blocks: Iterable[Array],
    sample: Array,
    num_vectors: int,
    *,
    budget_bytes: int = 4 << 30,
    body: Mapping[str, Any] | None = None,
) -> None:
    """Builds an index of all `blocks` ([n, D] each) into a directory, block by block.

    sample: rows [m, D] drawn at random over the whole corpus, never its first rows, for training.
    """
    faiss = _faiss()
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    dimension = sample.shape[1]
    recipe = factory(num_vectors, dimension, budget_bytes)
    index = faiss.index_factory(dimension, recipe, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        index.train(unit(sample))
    for block in blocks:
        index.add(unit(block))
    if index.ntotal != num_vectors:
        raise ArtefactError(f"{directory}: {index.ntotal} vectors were added, not {num_vectors}")
    with artefact.writing(directory / "index.faiss") as aside:
        try:
            faiss.write_index(index, str(aside))
        except RuntimeError as error:  # how FAISS tells of a full disk
            full = "No space left" in str(error)
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(aside)) from None
    card = {"factory": recipe, "num_vectors": num_vectors, "dimension": dimension}
    artefact.write_card(directory, "vectors", {**(body or {}), **card})


def training_rows(num_vectors: int, dimension: int, budget_bytes: int) -> int:
    """How many random rows `build` wants for training: few for an exact index."""
    recipe = factory(num_vectors, dimension, budget_bytes)
    if not recipe.startswith("IVF"):
        return min(num_vectors, 1024)
    lists = int(recipe[3:].split(",", maxsplit=1)[0])
    return min(num_vectors, lists * TRAIN_ROWS_PER_LIST)


class Vectors:
    """An opened index: `search` by cosine similarity."""

    def __init__(self, directory: Path) -> None:
        faiss = _faiss()
        self.card = artefact.read_card(directory, "vectors")
        try:
            self.index = faiss.read_index(str(directory / "index.faiss"), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise ArtefactError(f"{directory}/index.faiss is damaged: {error}") from None
        if hasattr(self.index, "nprobe"):
            self.index.nprobe = 32

    def search(self, queries: Array, k: int) -> tuple[Array, Array]:
        """(similarity float32 [q, k], row int64 [q, k]) of queries [q, D]; -1: no such row."""
        if queries.shape[1] != self.index.d:
            raise ValueError(f"queries have width {queries.shape[1]}, the index {self.index.d}")
        similarity, rows = self.index.search(unit(queries), k)
        return similarity, rows


def kmeans(vectors: Array, num_centroids: int, *, seed: int, spherical: bool = True) -> Array:
    """Centroids float32 [num_centroids, D] of rows [n, D] (unit vectors when spherical)."""
    faiss = _faiss()
    model = faiss.Kmeans(
        vectors.shape[1],
        num_centroids,
        niter=20,
        nredo=3,  # the best of three starts: one start can leave two modes in one cluster
        seed=seed % (1 << 31),
        spherical=spherical,
        min_points_per_centroid=1,
    )
    model.train(np.ascontiguousarray(vectors, np.float32))
    centroids: Array = model.centroids
    return centroids


def random_rows(blocks: Iterable[Array], num_rows: int, total: int, seed: int) -> Array:
    """About `num_rows` rows drawn uniformly over all blocks (all of them when fewer)."""
    generator = np.random.default_rng(seed)
    frac = num_rows / max(total, 1)
    picked: list[Array] = []
    for block in blocks:
        mask = generator.random(len(block)) < frac if frac < 1 else np.ones(len(block), bool)
        picked.append(np.asarray(block[mask]))
    return np.concatenate(picked) if picked else np.zeros((0, 0), np.float16)
