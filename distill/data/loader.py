"""Load batches of stored images onto the device; the step number determines the images.

N training images, B images of a step, R side of a stored image (see `augment.stored_side`).
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from distill.data import augment
from distill.data.dataset import ShardDataset
from distill.data.sampler import Rows, StepSampler
from distill.distributed import SINGLE, ProcessGroup
from indexes import devices
from indexes.command.progress import Progress
from indexes.images.decode import BadImage, Geometry, load_view
from indexes.splitmix import Uint64

CPU_BUDGET_BYTES = 4 << 30
CHUNK, CHUNK_BYTES = 4096, 256 << 20  # at most this many images and bytes are decoded at a time
TASK = 64  # images that a thread decodes at a time
WORKERS = 8  # decoding processes of a stream, by default

Pixels = npt.NDArray[np.uint8]

log = logging.getLogger(__name__)


def stored_geometry(geometry: Geometry) -> Geometry:
    """Return the geometry of stored images: canonical, or wider for views above 64 pixels."""
    side = augment.stored_side(geometry.size)
    frac = geometry.crop_frac if side == geometry.size else 1.0
    return Geometry(side, frac, geometry.interpolation)


def decode_images(read: Sequence[tuple[bytes, str]], geometry: Geometry) -> Pixels:
    """Decode images, given with their names, to stored images uint8 [B, R, R, 3].

    Raises ValueError, which names the image, if one cannot be decoded.
    """
    out = np.empty((len(read), geometry.size, geometry.size, 3), np.uint8)
    for row, (blob, name) in enumerate(read):
        try:
            out[row] = load_view(blob, geometry)[0]
        except BadImage as error:
            raise ValueError(
                f"{name} cannot be decoded ({error.reason}): the shards are damaged. Check them "
                "with `winnow verify`, and write them again"
            ) from error
    return out


def decode_chunks(
    dataset: ShardDataset, geometry: Geometry, starts: Iterable[int], most: int
) -> Iterator[tuple[int, Pixels]]:
    """Yield (start, uint8 [n, R, R, 3]) for each of `starts`: at most `most` images from there on.

    All cores decode, and they decode the next chunk while the caller uses this one.
    """

    def read(start: int) -> list[Future[Pixels]]:
        # Only this thread reads, because Shards keeps files open; the pool decodes.
        chunk = [dataset.read(index) for index in range(start, min(start + most, len(dataset)))]
        tasks = [chunk[first : first + TASK] for first in range(0, len(chunk), TASK)]
        return [pool.submit(decode_images, task, geometry) for task in tasks]

    with ThreadPoolExecutor(devices.cores()) as pool:
        waiting: deque[tuple[int, list[Future[Pixels]]]] = deque()
        for start in starts:
            waiting.append((start, read(start)))
            if len(waiting) > 1:
                first, parts = waiting.popleft()
                yield first, np.concatenate([part.result() for part in parts])
        for first, parts in waiting:
            yield first, np.concatenate([part.result() for part in parts])


def chunk_size(geometry: Geometry) -> int:
    """Return the number of images to read at a time when all are decoded."""
    return min(CHUNK, max(TASK, CHUNK_BYTES // (3 * geometry.size**2)))


def decode_all(
    dataset: ShardDataset, geometry: Geometry, device: str, group: ProcessGroup = SINGLE
) -> Tensor:
    """Return all stored images, uint8 [N, R, R, 3] on `device`; each process decodes a share."""
    num, side, most = len(dataset), geometry.size, chunk_size(geometry)
    images = torch.empty((num, side, side, 3), dtype=torch.uint8, device=device)
    starts = range(0, num, most)
    with Progress("decode", num) as progress:
        chunks = decode_chunks(dataset, geometry, starts[group.rank :: group.num], most)
        for number, start in enumerate(starts):
            part = images[start : start + most]
            if number % group.num == group.rank:
                part.copy_(torch.from_numpy(next(chunks)[1]))
            group.broadcast(part, number % group.num)
            progress.add(len(part))
    return images


class ImageSource(Protocol):
    """A source of the stored images of the steps."""

    def batches(self, start: int, stop: int) -> Iterator[Tensor]:
        """Yield stored images uint8 [B, R, R, 3] on the device for each step in start..stop-1."""


class InMemory:
    """All training images, decoded once and kept on the device."""

    def __init__(self, pixels_NRR3: Tensor, sampler: StepSampler) -> None:
        self.pixels_NRR3, self.sampler = pixels_NRR3, sampler

    def batches(self, start: int, stop: int) -> Iterator[Tensor]:
        """Yield stored images uint8 [B, R, R, 3] for each step in start..stop-1."""
        for step in range(start, stop):
            index = devices.send(self.sampler.indices(step)[0], self.pixels_NRR3.device)
            yield self.pixels_NRR3.index_select(0, index)


class _Steps(Dataset[Tensor]):
    """A dataset that maps a step to its stored images, for worker processes."""

    def __init__(self, dataset: ShardDataset, geometry: Geometry, sampler: StepSampler) -> None:
        self.dataset, self.geometry, self.sampler = dataset, geometry, sampler

    def __getitem__(self, step: int) -> Tensor:
        read = [self.dataset.read(int(index)) for index in self.sampler.indices(step)[0]]
        return torch.from_numpy(decode_images(read, self.geometry))


class Streaming:
    """Images that worker processes read and decode again at every visit."""

    def __init__(self, steps: _Steps, device: str, workers: int) -> None:
        self.steps, self.device, self.workers = steps, device, workers

    def batches(self, start: int, stop: int) -> Iterator[Tensor]:
        """Yield stored images uint8 [B, R, R, 3] for each step in start..stop-1."""
        options: dict[str, Any] = {}
        if self.workers:
            # fork is unsafe: this process has decoding threads and CUDA.
            options["multiprocessing_context"] = "spawn"
            options["prefetch_factor"] = 4
            options["worker_init_fn"] = devices.leave_signals
        loader = DataLoader(
            self.steps,
            batch_size=None,
            sampler=range(start, stop),
            num_workers=self.workers,
            pin_memory=self.device.startswith("cuda"),
            **options,
        )
        for pixels in loader:
            yield pixels.to(self.device, non_blocking=True)


def open_image_source(
    dataset: ShardDataset,
    geometry: Geometry,
    sampler: StepSampler,
    *,
    device: str,
    workers: int | None = None,
    budget_bytes: int | None = None,
    group: ProcessGroup = SINGLE,
) -> ImageSource:
    """Keep decoded images in memory if they fit the budget, else stream them.

    Both give the same batches. The default budget is half of the device's free memory, and on a CPU
    at most 4 GiB.
    """
    num_bytes = len(dataset) * geometry.size**2 * 3
    if budget_bytes is None:
        budget_bytes = free_bytes(device) // 2
        if not device.startswith("cuda"):
            budget_bytes = min(budget_bytes, CPU_BUDGET_BYTES)
    # Free memory may differ between processes, but all must make the same choice.
    is_too_large = torch.tensor(float(num_bytes > budget_bytes), device=device)
    if not group.all_reduce(is_too_large):
        return InMemory(decode_all(dataset, geometry, device, group), sampler)
    if workers is None:
        workers = max(1, min(WORKERS, devices.cores() - 1))
    readers = f"{workers} worker{'s' * (workers != 1)}" if workers else "the main process"
    log.info(
        "the decoded images take %.2f GiB, more than the %.2f GiB allowed: %s will decode each "
        "image at every visit",
        num_bytes / 2**30,
        budget_bytes / 2**30,
        readers,
    )
    return Streaming(_Steps(dataset, geometry, sampler), device, workers)


@dataclass(frozen=True)
class ViewBatch:
    """The views of a step: k views of B images, view by view.

    pixels [k B, 3, S, S] in [0, 1]; index [k B], the images; visits [k B], their numbers of visits.
    """

    pixels: Tensor
    index: Rows
    visits: Rows


class StepLoader:
    """The views of any step, from a source of images, a sampler and an augmentation.

    `per_image` is k, the number of views of an image in one step. The visits of an image are
    numbered throughout the training. Visit v shows view v, or view v modulo `num_views` if
    `num_views` is not 0. `waited` is the time in seconds for which steps have waited for stored
    images.
    """

    def __init__(
        self,
        source: ImageSource,
        sampler: StepSampler,
        key_hash: Uint64,
        augmentation: augment.Augmentation,
        *,
        per_image: int,
        num_views: int,
    ) -> None:
        self.source, self.sampler = source, sampler
        self.key_hash, self.augmentation = key_hash, augmentation
        self.per_image, self.num_views = per_image, num_views
        self.waited = 0.0

    def steps(self, start: int, stop: int) -> Iterator[ViewBatch]:
        """Yield the views of each step in start..stop-1."""
        batches = self.source.batches(start, stop)
        for step in range(start, stop):
            begin = time.monotonic()
            stored = next(batches)
            self.waited += time.monotonic() - begin
            index, epoch = self.sampler.indices(step)
            visits = np.concatenate([epoch * self.per_image + j for j in range(self.per_image)])
            index = np.tile(index, self.per_image)
            view = visits % self.num_views if self.num_views else visits
            stored = stored.repeat(self.per_image, 1, 1, 1) if self.per_image > 1 else stored
            pixels = self.augmentation(stored, self.key_hash[index], view)
            yield ViewBatch(pixels, index, visits)


def free_bytes(device: str) -> int:
    """Return the free memory of `device` in bytes."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
