"""Shards -> batches of stored images on the device, in an order that a step number determines.

N training images, B images of a step, R side of a stored image (see `views.stored_side`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from distill import views
from distill.order import Rows, Visits
from distill.stock import Stock
from indexes import devices, images
from indexes.progress import Progress

CPU_BUDGET_BYTES = 4 << 30
CHUNK = 4096  # images read at a time while decoding everything
TASK = 64  # images a thread decodes at a time
WORKERS = 8  # decoding processes of a stream, unless told

Pixels = npt.NDArray[np.uint8]


def stored_geometry(geometry: images.Geometry) -> images.Geometry:
    """How images are stored for views of `geometry.size`: canonical, or wider for large views."""
    side = views.stored_side(geometry.size)
    frac = geometry.crop_frac if side == geometry.size else 1.0
    return images.Geometry(side, frac, geometry.interpolation)


def decode(read: Sequence[tuple[bytes, str]], geometry: images.Geometry) -> Pixels:
    """Images and their names -> stored images uint8 [B, R, R, 3].

    ValueError names an image that cannot be decoded.
    """
    out = np.empty((len(read), geometry.size, geometry.size, 3), np.uint8)
    for place, (blob, name) in enumerate(read):
        try:
            out[place] = images.load(blob, geometry)[0]
        except images.BadImage as error:
            raise ValueError(
                f"{name} cannot be decoded ({error.reason}): the shards are damaged; "
                "check them with `winnow verify`, and make them again"
            ) from error
    return out


def decode_all(stock: Stock, geometry: images.Geometry, device: str) -> Tensor:
    """The stored images, uint8 [N, R, R, 3] on `device`; on every core."""
    num, side = len(stock), geometry.size
    whole = torch.empty((num, side, side, 3), dtype=torch.uint8, device=device)
    with ThreadPoolExecutor(devices.cores()) as pool, Progress("decode", num) as progress:
        for start in range(0, num, CHUNK):
            # One thread reads, as Shards keeps its open files; the many decode.
            chunk = [stock.read(index) for index in range(start, min(start + CHUNK, num))]
            tasks = [chunk[place : place + TASK] for place in range(0, len(chunk), TASK)]
            parts = pool.map(lambda task: decode(task, geometry), tasks)
            pixels = torch.from_numpy(np.concatenate(list(parts)))
            whole[start : start + len(chunk)].copy_(pixels)
            progress.add(len(chunk))
    return whole


class Source(Protocol):
    """Where the stored images of the steps come from."""

    def batches(self, start: int, stop: int) -> Iterator[Tensor]:
        """Stored images uint8 [B, R, R, 3] on the device of each step in start..stop-1."""


class Resident:
    """All training images decoded once, kept on the device."""

    def __init__(self, pixels_NRR3: Tensor, order: Visits) -> None:
        self.pixels_NRR3, self.order = pixels_NRR3, order

    def batches(self, start: int, stop: int) -> Iterator[Tensor]:
        """See Source."""
        for step in range(start, stop):
            index = torch.from_numpy(self.order.visit(step)[0])
            yield self.pixels_NRR3.index_select(0, index.to(self.pixels_NRR3.device))


class _Steps(Dataset[Tensor]):
    """A map from step number to its stored images, for worker processes."""

    def __init__(self, stock: Stock, geometry: images.Geometry, order: Visits) -> None:
        self.stock, self.geometry, self.order = stock, geometry, order

    def __getitem__(self, step: int) -> Tensor:
        read = [self.stock.read(int(index)) for index in self.order.visit(step)[0]]
        return torch.from_numpy(decode(read, self.geometry))


class Streamed:
    """Images read from the tars and decoded again at every visit, by worker processes."""

    def __init__(self, steps: _Steps, device: str, workers: int) -> None:
        self.steps, self.device, self.workers = steps, device, workers

    def batches(self, start: int, stop: int) -> Iterator[Tensor]:
        """See Source."""
        options: dict[str, Any] = {}
        if self.workers:
            # Not fork: decoding threads and CUDA live in this process.
            options["multiprocessing_context"] = "spawn"
            options["prefetch_factor"] = 4
            options["worker_init_fn"] = devices.leave_interrupts
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


def open_source(
    stock: Stock,
    geometry: images.Geometry,
    order: Visits,
    *,
    device: str,
    workers: int | None = None,
    budget_bytes: int | None = None,
) -> Source:
    """Resident when the decoded images fit the budget, else streamed; the same batches either way.

    The budget is half of the device's free memory, on a CPU at most 4 GiB, unless given.
    """
    num_bytes = len(stock) * geometry.size**2 * 3
    if budget_bytes is None:
        budget_bytes = free_bytes(device) // 2
        if not device.startswith("cuda"):
            budget_bytes = min(budget_bytes, CPU_BUDGET_BYTES)
    if num_bytes <= budget_bytes:
        return Resident(decode_all(stock, geometry, device), order)
    if workers is None:
        workers = max(1, min(WORKERS, devices.cores() - 1))
    print(
        f"{num_bytes / 2**30:.1f} GiB of decoded images do not fit {budget_bytes / 2**30:.1f} GiB: "
        f"streamed by {workers} workers",
        flush=True,
    )
    return Streamed(_Steps(stock, geometry, order), device, workers)


@dataclass(frozen=True)
class Seen:
    """What a step sees: pixels [k B, 3, S, S] in [0, 1], view by view; image index and visit."""

    pixels: Tensor
    index: Rows
    visits: Rows


class Feed:
    """Source, order and views together: the pixels of any step.

    `per_image` is k, the views of an image in one step; an image's visits are numbered on and
    on, and visit v shows view v, or v modulo `num_views` where that is not 0; `seed` draws them.
    """

    def __init__(
        self,
        source: Source,
        order: Visits,
        key_hash: views.Uint64,
        *,
        size: int,
        per_image: int,
        num_views: int,
        seed: int,
    ) -> None:
        self.source, self.order, self.key_hash, self.seed = source, order, key_hash, seed
        self.size, self.per_image, self.num_views = size, per_image, num_views

    def steps(self, start: int, stop: int) -> Iterator[Seen]:
        """What each step in start..stop-1 sees."""
        for step, stored in enumerate(self.source.batches(start, stop), start):
            index, epoch = self.order.visit(step)
            visits = np.concatenate([epoch * self.per_image + j for j in range(self.per_image)])
            index = np.tile(index, self.per_image)
            view = visits % self.num_views if self.num_views else visits
            boxes = views.draw(self.seed, self.key_hash[index], view, self.size)
            stored = stored.repeat(self.per_image, 1, 1, 1) if self.per_image > 1 else stored
            yield Seen(views.cut(stored, boxes, self.size), index, visits)


def free_bytes(device: str) -> int:
    """Memory that can still be had on `device`, in bytes."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
