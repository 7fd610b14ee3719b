"""Streaming: the time that a step waits for images, and the speed of reading shards alone.

Command: python -m benchmarks.stream --shards DIR --teacher DIR [--workers 1]
Waits: there are two trainings through `distill.run.train_students`. One has the decoded images in
memory (`in memory`); the other one reads and decodes them in every epoch (`streaming`). The figure
is data_wait_frac of their logs over the last three quarters.
Reading alone: images per second over alternating rounds. Our stream is compared with webdataset +
DataLoader, which reads the same shards into the same uint8 batches with as many processes, and with
the floor, which reads the bare bytes of the tars. All read from the page cache.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks import ours, pair, timing
from benchmarks.timing import Line, Sample, Target, timed
from distill.data.dataset import ShardDataset
from distill.data.loader import open_image_source, stored_geometry
from distill.data.sampler import EpochSampler
from indexes.images.decode import Geometry, load_view
from indexes.shards.reader import Shards, open_shards

QUEUED = 12  # batches per worker taken before the clock starts: start-up and queue do not count
BLOCK = 1 << 20


class Load:
    """Turns a webdataset sample into a tuple of the stored image; a class, so that it pickles."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry

    def __call__(self, sample: dict[str, Any]) -> tuple[npt.NDArray[np.uint8]]:
        blob = next(sample[ext] for ext in ("jpg", "jpeg", "png", "webp") if ext in sample)
        return (load_view(blob, self.geometry)[0],)


def our_batches(shards: Shards, geometry: Geometry, args: argparse.Namespace) -> Iterator[Tensor]:
    """Return shuffled batches as a training streams them: uint8 [B, R, R, 3]."""
    dataset = ShardDataset([(shards, np.arange(len(shards)))])
    order = EpochSampler(len(shards), args.batch_size, seed=0)
    source = open_image_source(
        dataset, geometry, order, device="cpu", workers=args.workers, budget_bytes=0
    )
    return source.batches(0, 10**6)


def their_batches(shards: Shards, geometry: Geometry, args: argparse.Namespace) -> Iterator[Tensor]:
    """Yield batches of webdataset as documented: shuffled shards, a buffer of 1,000, DataLoader."""
    import webdataset as wds

    dataset = (
        wds.WebDataset(
            [str(tar) for tar in shards.tars],
            shardshuffle=len(shards.tars),
            nodesplitter=None,
            # Every process reads all shards: there may be fewer shards than processes.
            workersplitter=None,
        )
        .repeat()
        .shuffle(1000)
        .map(Load(geometry))
        .batched(args.batch_size, partial=False)
    )
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=args.workers)
    for (batch,) in loader:
        assert batch.shape == (args.batch_size, geometry.size, geometry.size, 3)
        yield torch.as_tensor(batch)


def reading(batches: Iterator[Any], args: argparse.Namespace) -> Callable[[], Sample]:
    """Return a measurement of a running stream.

    The batches queued since the last round are taken before the clock starts.
    """

    def job() -> int:
        return sum(len(batch) for batch in itertools.islice(batches, args.batches))

    def measure() -> Sample:
        for _ in itertools.islice(batches, QUEUED * max(1, args.workers)):
            pass
        return timed(job)

    return measure


def bytes_alone(shards: Shards) -> int:
    """Read the tars from end to end and return the number of their images."""
    for tar in shards.tars:
        with tar.open("rb", buffering=0) as file:
            while file.read(BLOCK):
                pass
    return len(shards)


def waits(job: ours.Job, steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """Measure data_wait_frac and images per second, with images in memory and streaming."""
    jobs = {"in memory": job, "streaming": replace(job, budget_bytes=0)}
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, variant in jobs.items():
            log = ours.log_of(ours.run(variant, steps)[0])
            speed = log[-1]["images_per_second"]
            measured[name].append({"wait_frac": ours.wait_frac(log), "images_per_second": speed})
    return {
        f"training, {name}": {
            key: statistics.median(figures[key] for figures in each) for key in each[0]
        }
        for name, each in measured.items()
    }


def lines(table: dict[str, dict[str, float]]) -> list[Line]:
    """Return the rows of the table: the two waits, and the speed of reading."""
    wait = {name: table[f"training, {name}"]["wait_frac"] for name in ("in memory", "streaming")}
    limit = Target(of="", sense="<=", bound=0.02)
    key = "images_per_second"
    return [
        *(
            Line(row=f"stream, wait {name}", unit="share of a step", ours=value, target=limit)
            for name, value in wait.items()
        ),
        Line(
            row="stream, reading alone",
            unit="images per second",
            ours=table["ours"][key],
            floor=table["bytes"][key],
            peer=table.get("webdataset", {}).get(key),
            floor_name="bytes of the tars",
            peer_name="webdataset",
        ),
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Print the table and write benchmarks/stream.json."""
    args = arguments(words)
    pair.begin(args)
    shards = open_shards(args.shards)
    with contextlib.ExitStack() as stack:
        scratch = args.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        job = ours.Job(
            shards=args.shards,
            teacher=args.teacher,
            students=(args.student,),
            batch_size=args.batch_size,
            device=args.device,
            scratch=scratch,
            workers=args.workers,
        )
        table = waits(job, args.steps, args.rounds)
    geometry = stored_geometry(Geometry(shards.input_size))
    contestants = {
        "bytes": partial(timed, lambda: bytes_alone(shards)),
        "ours": reading(our_batches(shards, geometry, args), args),
        "webdataset": reading(their_batches(shards, geometry, args), args),
    }
    table |= timing.contest(contestants, args.rounds)
    timing.show(table)
    result = {"contestants": table, "machine": timing.machine(args.device)}
    timing.write("stream", lines(table), **result, command=pair.plain(args))


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    options = pair.parser(__doc__)
    options.add_argument("--student", default="resnet20", help="the student network")
    options.add_argument(
        "--batches", type=int, default=100, help="batches per round of reading alone"
    )
    options.add_argument("--workers", type=int, default=1, help="reading processes")
    return options.parse_args(words)


if __name__ == "__main__":
    main()
