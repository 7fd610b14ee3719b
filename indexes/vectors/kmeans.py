"""Centroids of inverted lists: train them on a sample and find the nearest ones of rows.

FAISS's k-means (index.train_kmeans) serves a few clusters with several starts. An index needs
thousands of lists: with this module a build of 1,000,000 x 512 takes 43 CPU-seconds, with FAISS's
k-means 98 (docs/LOG.md).

Legend: L lists, D features, n rows. The nearest centroids come from one matrix product, in bf16
where that is native and on the GPU if there is one. Either of two centroids that bf16 cannot
distinguish is good enough.
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
SCORES = 1 << 22  # most similarities of rows to centroids in memory at a time


def train_centroids(sample: Floats, num_lists: int, seed: int) -> Centroids:
    """Train unit centroids float32 [L, D] on unit rows [m, D] in random order, m >= L.

    This is spherical k-means that starts from the first rows. An empty list splits one of the
    largest lists. Five rounds over 32 rows per list reach the recall of twenty rounds over 64 to
    within .005, in a tenth of the time (OURS, measured). Sums are computed on the CPU.
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
    """Return the most similar of centroids [L, D] for each of rows [n, D], as int64 [n].

    Example:
        >>> axes = np.eye(2, dtype=np.float32)
        >>> nearest_centroid(np.array([[0.1, 0.9]], np.float32), axes)
        array([1])
    """
    import torch

    steps = _scores(torch.from_numpy(rows), torch.from_numpy(centroids))
    # max is six times faster than argmax in bf16.
    nearest = [scores.max(1).indices.cpu().numpy() for _, scores in steps]
    return np.concatenate([np.zeros(0, np.int64), *nearest])


def nearest_centroids(rows: Floats, centroids: Centroids, probes: int) -> tuple[Rows, Rows]:
    """Return pairs (row [p], centroid [p]): rows [n, D] with their `probes` nearest centroids.

    A row has fewer pairs if its last centroids are as similar as the next one.
    """
    import torch

    row_ids, centroid_ids, first = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for chunk, scores in _scores(torch.from_numpy(rows), torch.from_numpy(centroids)):
        values = scores.float().cpu().numpy()
        least = np.full((len(chunk), 1), -np.inf, np.float32)
        if probes < len(centroids):  # np.partition is ten times faster than np.argpartition
            least = np.partition(values, -probes - 1, axis=1)[:, -probes - 1, None]
        row, centroid = np.divmod(np.flatnonzero(values > least), len(centroids))
        row_ids.append(row + first)
        centroid_ids.append(centroid)
        first += len(chunk)
    return np.concatenate(row_ids), np.concatenate(centroid_ids)


def _scores(rows: Tensor, centroids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields chunks of rows [n, D] with their similarities [n, L] to the centroids."""
    import torch

    device = devices.choose()
    kind = torch.bfloat16 if devices.has_bf16(device) else torch.float32
    columns = centroids.to(device, kind).T
    step = max(256, SCORES // len(centroids))
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        yield chunk, chunk.to(device, kind) @ columns
