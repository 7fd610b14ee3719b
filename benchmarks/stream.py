"""Streaming: how long a step waits for its images, and how fast shards are read without a step.

Command: python -m benchmarks.stream --shards DIR --teacher DIR [--workers 1]
Waits: two trainings through `distill.run.train_students`, one with the decoded images in memory
(`resident`) and one that reads and decodes them again at each visit (`streamed`); data_wait_frac of
their logs over the later three quarters. Reading alone, rounds alternating, images per second: our
stream, webdataset + DataLoader over the same shards to the same uint8 batches with as many
processes, and the floor, the bare bytes of the tars (from the system's cache, as for the others).
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

FULL = 12  # batches taken beforehand from each worker: its start and its queue are not counted
BLOCK = 1 << 20


class Load:
    """webdataset's sample -> a tuple of the stored image; an object, as workers may be spawned."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry

    def __call__(self, sample: dict[str, Any]) -> tuple[npt.NDArray[np.uint8]]:
        blob = next(sample[ext] for ext in ("jpg", "jpeg", "png", "webp") if ext in sample)
        return (load_view(blob, self.geometry)[0],)


def our_batches(shards: Shards, geometry: Geometry, args: argparse.Namespace) -> Iterator[Tensor]:
    """Shuffled batches as a training streams them. The one place that opens distill's reader."""
    dataset = ShardDataset([(shards, np.arange(len(shards)))])
    order = EpochSampler(len(shards), args.batch_size, seed=0)
    source = open_image_source(
        dataset, geometry, order, device="cpu", workers=args.workers, budget_bytes=0
    )
    return source.batches(0, 10**6)


def their_batches(shards: Shards, geometry: Geometry, args: argparse.Namespace) -> Iterator[Tensor]:
    """webdataset as its documentation has it: shuffled shards, a buffer of 1,000, DataLoader."""
    import webdataset as wds

    dataset = (
        wds.WebDataset(
            [str(tar) for tar in shards.tars],
            shardshuffle=len(shards.tars),
            nodesplitter=None,
            workersplitter=None,  # each process reads all shards: there may be fewer than these
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
    """A measurement of batches that are coming already.

    What waits in a queue since the last round is taken first.
    """

    def job() -> int:
        return sum(len(batch) for batch in itertools.islice(batches, args.batches))

    def measure() -> Sample:
        for _ in itertools.islice(batches, FULL * max(1, args.workers)):
            pass
        return timed(job)

    return measure


def bytes_alone(shards: Shards) -> int:
    """Reads the tars from end to end; the number of their images."""
    for tar in shards.tars:
        with tar.open("rb", buffering=0) as file:
            while file.read(BLOCK):
                pass
    return len(shards)


def waits(job: ours.Job, steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """data_wait_frac and images per second, with images in memory and streamed."""
    jobs = {"resident": job, "streamed": replace(job, budget_bytes=0)}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, one in jobs.items():
            log = ours.log_of(ours.run(one, steps)[0])
            speed = log[-1]["images_per_second"]
            found[name].append({"wait_frac": ours.wait_frac(log), "images_per_second": speed})
    return {
        f"training, {name}": {key: statistics.median(one[key] for one in many) for key in many[0]}
        for name, many in found.items()
    }


def lines(table: dict[str, dict[str, float]]) -> list[Line]:
    """Two waits, and the speed of reading."""
    wait = {name: table[f"training, {name}"]["wait_frac"] for name in ("resident", "streamed")}
    limit = Target(of="", sense="<=", bound=0.02)
    key = "images_per_second"
    return [
        *(
            Line(row=f"stream, wait {name}", unit="of a step", ours=value, target=limit)
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
    """Prints one table and writes benchmarks/stream.json."""
    args = arguments(words)
    pair.begin(args)
    shards = open_shards(args.shards)
    with contextlib.ExitStack() as held:
        scratch = args.scratch or Path(held.enter_context(tempfile.TemporaryDirectory()))
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
    """The command line."""
    options = pair.parser(__doc__)
    options.add_argument("--student", default="resnet20")
    options.add_argument("--batches", type=int, default=100, help="of a round of reading alone")
    options.add_argument("--workers", type=int, default=1, help="reading processes")
    return options.parse_args(words)


if __name__ == "__main__":
    main()
