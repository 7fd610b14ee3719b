"""The one door to FAISS: search, all-pairs neighbors, k-means. Cosine similarity throughout.

An index is a stock FAISS file of inverted lists that is mapped, not read; indexes.vectors.build
builds it. N vectors, D features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes import artifact
from indexes.artifact import ArtifactError
from indexes.vectors import invlists, knn

Array = npt.NDArray[Any]
INDEX = "index.faiss"


def _faiss() -> Any:
    import faiss

    return faiss


def normalize_rows(vectors: Array) -> Array:
    """Rows [n, D] scaled to length 1, contiguous float32."""
    scaled = np.array(vectors, np.float32, order="C")
    lengths = np.sqrt(np.einsum("nd,nd->n", scaled, scaled))
    scaled /= np.maximum(lengths, 1e-12)[:, None]
    return scaled


def empty_index(factory: str, means: Array, sample: Array) -> Any:
    """An index of inverted lists about centroids [L, D], its codes trained on unit rows [m, D]."""
    faiss = _faiss()
    index = faiss.index_factory(means.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.by_residual = False  # codes of the vectors themselves: whole lists are decoded at once
    index.quantizer.add(means)
    index.train(sample)
    return index


def serialize_index(index: Any) -> bytes:
    """An index as the bytes of its file."""
    data: bytes = _faiss().serialize_index(index).tobytes()
    return data


def deserialize_index(path: Path) -> Any:
    """An index read into memory."""
    return _faiss().read_index(str(path))


def map_index(path: Path) -> Any:
    """An index whose lists stay on the disk; ArtifactError where it is none."""
    faiss = _faiss()
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        raise ArtifactError(f"{path} is damaged ({error}): delete its folder and rerun") from None


def flat_index(queries: Array, blocks: Iterable[Array], k: int) -> tuple[Array, Array]:
    """(similarity [q, k], row [q, k]) of unit rows [q, D] by a scan of all rows, in blocks."""
    from faiss.contrib import exhaustive_search

    scan: Any = exhaustive_search.knn_ground_truth
    similarity, rows = scan(queries, blocks, k, _faiss().METRIC_INNER_PRODUCT)
    return similarity, rows


class Vectors:
    """An opened index: `search` and `neighbors` by cosine similarity."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.card = artifact.read_card(self.directory, "vectors")
        path = self.directory / INDEX
        if not artifact.is_whole(path, self.card["bytes"]):
            raise ArtifactError(f"{path} is damaged or missing: delete its folder and rerun")
        self.index = map_index(path)
        self.index.nprobe = self.card["nprobe"]

    def search(self, queries: Array, k: int) -> tuple[Array, Array]:
        """(similarity float32 [q, k], row int64 [q, k]) of queries [q, D]; -1: no such row."""
        if queries.shape[1] != self.index.d:
            raise ValueError(f"queries have width {queries.shape[1]}, the index {self.index.d}")
        similarity, rows = self.index.search(normalize_rows(queries), k)
        return similarity, rows

    def neighbors(
        self, blocks: Iterable[Sized], k: int, *, probes: int | None = None
    ) -> Iterator[tuple[Array, Array]]:
        """For each block of the corpus its rows' k nearest others: (similarity float32 [n, k],
        row int64 [n, k]), nearest first; -1 and similarity -inf where there are no more.

        blocks: whose lengths add up to N, in row order. probes: how many lists are looked into;
        by default as many as find .999 of the neighbors that the build calls close (the card
        says what was reached). `card["nprobe"]` finds what a search finds, at a third of the time.
        Memory: an eighth of the budget; the N x k results lie in a nameless file beside the index.
        """
        return knn.all_pairs(
            invlists.Lists(self.directory / INDEX, self.index),
            blocks,
            k,
            probes=probes or self.card["nprobe_close"],
            budget_bytes=self.card["budget_bytes"] // 8,
        )


def train_kmeans(vectors: Array, num_centroids: int, *, seed: int, spherical: bool = True) -> Array:
    """Centroids float32 [num_centroids, D] of rows [n, D] (unit vectors when spherical)."""
    model = _faiss().Kmeans(
        vectors.shape[1],
        num_centroids,
        niter=20,
        nredo=3,  # the best of three starts: one start can leave two modes in one cluster
        seed=seed % (1 << 31),
        spherical=spherical,
        min_points_per_centroid=1,
    )
    model.train(np.ascontiguousarray(vectors, np.float32))
    found: Array = model.centroids
    return found
