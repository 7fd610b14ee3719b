"""Centroids of inverted lists: trained on a sample, and the nearest ones of rows.

Beside FAISS's k-means (index.train_kmeans, for a few clusters with several starts) because an
index needs thousands of lists: with these a build of 1,000,000 x 512 takes 43 CPU-seconds, plain
FAISS 98 (docs/LOG.md).

L lists, D features, n rows. Nearest centroids are one matrix product, in bf16 where that is native
and on a GPU where there is one: of two centroids that bf16 cannot tell apart either will do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexes import devices

if TYPE_CHECKING:
    from torch import Tensor

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]
Centroids = npt.NDArray[np.float32]
ROUNDS = 5
SCORES = 1 << 22  # of rows against centroids, held at once


def train_centroids(sample: Floats, num_lists: int, seed: int) -> Centroids:
    """Unit centroids float32 [num_lists, D] of unit rows [m, D] in random order, m >= num_lists.

    Spherical k-means from the first rows; an empty list splits one of the largest. Five rounds
    over 32 rows a list are as good as twenty over 64 to within .005 of recall, at a tenth of the
    time (OURS, measured). Sums are made on the CPU: the same on every machine's GPU.
    """
    import torch

    generator = torch.Generator().manual_seed(seed % (1 << 31))
    rows = torch.from_numpy(sample)
    centroids = torch.nn.functional.normalize(rows[:num_lists].float(), dim=1)
    for _ in range(ROUNDS):
        sums, counts = torch.zeros_like(centroids), torch.zeros(num_lists, dtype=torch.int64)
        for chunk, scores in _scores(rows, centroids):
            member = scores.max(1).indices.cpu()
            sums.index_add_(0, member, chunk.float())
            counts += torch.bincount(member, minlength=num_lists)
        centroids = torch.nn.functional.normalize(sums, dim=1)
        empty = torch.nonzero(counts == 0)[:, 0]
        if len(empty):
            largest = counts.argsort(descending=True, stable=True)[: len(empty)]
            noise = torch.randn((len(empty), rows.shape[1]), generator=generator) * 1e-3
            split = centroids[largest] + noise
            centroids[empty] = torch.nn.functional.normalize(split, dim=1)
    trained: Centroids = centroids.numpy()
    return trained


def nearest_centroid(rows: Floats, centroids: Centroids) -> Rows:
    """int64 [n]: the centroid [L, D] most similar to each of rows [n, D]."""
    import torch

    steps = _scores(torch.from_numpy(rows), torch.from_numpy(centroids))
    # Not argmax, which is six times slower in bf16.
    nearest = [scores.max(1).indices.cpu().numpy() for _, scores in steps]
    return np.concatenate([np.zeros(0, np.int64), *nearest])


def nearest_centroids(rows: Floats, centroids: Centroids, probes: int) -> tuple[Rows, Rows]:
    """(row [p], centroid [p]): pairs of rows [n, D] and their `probes` most similar centroids.

    A few less where the last of them are equally similar to the next.
    """
    import torch

    row_ids, centroid_ids, first = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for chunk, scores in _scores(torch.from_numpy(rows), torch.from_numpy(centroids)):
        values = scores.float().cpu().numpy()
        least = np.full((len(chunk), 1), -np.inf, np.float32)
        if probes < len(centroids):  # values are parted ten times faster than their positions
            least = np.partition(values, -probes - 1, axis=1)[:, -probes - 1, None]
        row, centroid = np.divmod(np.flatnonzero(values > least), len(centroids))
        row_ids.append(row + first)
        centroid_ids.append(centroid)
        first += len(chunk)
    return np.concatenate(row_ids), np.concatenate(centroid_ids)


def _scores(rows: Tensor, centroids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(a chunk of rows, their similarities [n, L] to the centroids), step by step."""
    import torch

    device = devices.choose()
    kind = torch.bfloat16 if devices.has_bf16(device) else torch.float32
    columns = centroids.to(device, kind).T
    step = max(256, SCORES // len(centroids))
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        yield chunk, chunk.to(device, kind) @ columns
