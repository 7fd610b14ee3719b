"""Search an index, find all-pairs neighbors, run k-means; all by cosine similarity, with FAISS.

An index is a stock FAISS file of inverted lists, which is memory-mapped. indexes.vectors.build
builds it. Legend: N vectors, D features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes import artifact
from indexes.artifact import ArtifactError
from indexes.vectors import knn
from indexes.vectors.invlists import InvertedLists

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
AnyFloats = npt.NDArray[np.floating[Any]]
INDEX = "index.faiss"


def _faiss() -> Any:
    import faiss

    return faiss


def normalize_rows(vectors: AnyFloats) -> Floats:
    """Return rows [n, D] scaled to length 1, as contiguous float32.

    Example:
        >>> normalize_rows(np.array([[3.0, 4.0]]))
        array([[0.6, 0.8]], dtype=float32)
    """
    scaled = np.array(vectors, np.float32, order="C")
    lengths = np.sqrt(np.einsum("nd,nd->n", scaled, scaled))
    scaled /= np.maximum(lengths, 1e-12)[:, None]
    return scaled


def empty_index(factory: str, centroids: Floats, sample: Floats) -> Any:
    """Return an empty index with lists at centroids [L, D], its codes trained on rows [m, D]."""
    faiss = _faiss()
    index = faiss.index_factory(centroids.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.by_residual = False  # codes of the vectors themselves: whole lists are decoded at once
    index.quantizer.add(centroids)
    index.train(sample)
    return index


def serialize_index(index: Any) -> bytes:
    """Return the bytes of an index's file."""
    data: bytes = _faiss().serialize_index(index).tobytes()
    return data


def deserialize_index(path: Path) -> Any:
    """Read an index into memory."""
    return _faiss().read_index(str(path))


def map_index(path: Path) -> Any:
    """Open an index whose lists stay on disk; raises ArtifactError if the file is damaged."""
    faiss = _faiss()
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        raise ArtifactError(f"{path} is damaged ({error}): delete its folder and rerun") from None


def exact_neighbors(queries: Floats, blocks: Iterable[Floats], k: int) -> tuple[Floats, Rows]:
    """Find the k nearest rows of unit queries [q, D] by a scan of all rows, given in blocks.

    Returns (similarity [q, k], row [q, k]), nearest first.
    """
    from faiss.contrib import exhaustive_search

    scan: Any = exhaustive_search.knn_ground_truth
    similarity, rows = scan(queries, blocks, k, _faiss().METRIC_INNER_PRODUCT)
    return similarity, rows


class Vectors:
    """An opened index: `search` and `neighbors` by cosine similarity.

    Example::

        similarity, rows = Vectors("runs/vectors/demo-0123456789").search(queries, 10)
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.card = artifact.read_card(self.directory, "vectors")
        path = self.directory / INDEX
        if not artifact.is_whole(path, self.card["bytes"]):
            raise ArtifactError(f"{path} is damaged or missing: delete its folder and rerun")
        self.index = map_index(path)
        self.index.nprobe = self.card["nprobe"]

    def search(self, queries: AnyFloats, k: int) -> tuple[Floats, Rows]:
        """Return (similarity float32 [q, k], row int64 [q, k]) of queries [q, D], nearest first.

        A row is -1 if there are no more. Raises ValueError if D differs from the index.
        """
        if queries.shape[1] != self.index.d:
            raise ValueError(
                f"the queries have width {queries.shape[1]}, but the index has width {self.index.d}"
            )
        similarity, rows = self.index.search(normalize_rows(queries), k)
        return similarity, rows

    def neighbors(
        self,
        blocks: Iterable[Sized],
        k: int,
        *,
        probes: int | None = None,
        sizes: knn.TileSizes = knn.SIZES,
    ) -> Iterator[tuple[Floats, Rows]]:
        """Yield the k nearest other rows of each row, block by block of the corpus.

        Yields (similarity float32 [n, k], row int64 [n, k]), nearest first; row -1 and similarity
        -inf mean that there are fewer. blocks: their lengths add up to N, in row order. probes:
        the number of lists to probe. The default finds .999 of the close neighbors (the card
        records the share that was reached). `card["nprobe"]` finds as many as `search` does, in a
        third of the time. Memory: an eighth of the budget; the N x k results are in an unnamed
        temporary file beside the index.
        """
        return knn.all_neighbors(
            InvertedLists(self.directory / INDEX, self.index),
            blocks,
            k,
            probes=probes or self.card["nprobe_close"],
            budget_bytes=self.card["budget_bytes"] // 8,
            sizes=sizes,
        )


def train_kmeans(
    vectors: AnyFloats, num_centroids: int, *, seed: int, spherical: bool = True
) -> Floats:
    """Cluster rows [n, D]; return centroids float32 [num_centroids, D], unit ones if spherical.

    Use this for a few clusters of many rows, where the best of several starts matters. The lists
    of an index are trained by indexes.vectors.kmeans instead.
    """
    model = _faiss().Kmeans(
        vectors.shape[1],
        num_centroids,
        niter=20,
        nredo=3,  # best of three starts, because a single one can put two modes in one cluster
        seed=seed % (1 << 31),
        spherical=spherical,
        min_points_per_centroid=1,
    )
    model.train(np.ascontiguousarray(vectors, np.float32))
    centroids: Floats = model.centroids
    return centroids
