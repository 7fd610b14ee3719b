"""Decoded: the images of a corpus's parts as batches, in worker processes; defects are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from indexes import devices, embeddings
from indexes.artifact import hash64
from indexes.images.decode import BadImage, Geometry, load_view, probe_image
from indexes.plugins import find
from indexes.sources.sample import text_key
from indexes.sources.spec import DamagedPart, Part, Sample, SourceError

Array = npt.NDArray[Any]


@dataclass
class Batch:
    """b decoded images of one part: pixels uint8 [b, S, S, 3] per geometry, thumbs uint8
    [b, indexes.images.thumbnails.WIDTH], columns [b].
    """

    part: int
    pixels: list[torch.Tensor]
    thumbs: Array
    keys: list[str]
    exts: list[str]
    columns: dict[str, Array]


@dataclass
class Row:
    """One decoded image on its way into a batch."""

    sample: Sample
    views: list[Array]
    thumb: Array
    sizes: dict[str, int]


@dataclass
class PartEnd:
    """A part was read to its end: what was found, dropped by reason, and where it broke."""

    part: int
    found: int
    dropped: dict[str, int]
    damage: str | None
    unreadable: bool


class Decoded(IterableDataset[Batch | PartEnd]):
    """Streams whole parts, part w, w + W, ... in worker w of W, as batches in the part's order.

    The batches of a part do not depend on the number of workers, so neither do the bytes out.
    """

    def __init__(
        self,
        parts: list[tuple[int, Part]],
        geometries: list[Geometry],
        batch_size: int,
        plugin: str | None = None,
    ) -> None:
        """`plugin`: the user's own .py file that defines the parts' class, if one does."""
        self.parts, self.geometries, self.batch_size = parts, geometries, batch_size
        self.plugin = plugin

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "parts": ForkingPickler.dumps(self.parts).tobytes()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A worker must have loaded the user's file before it can take parts of its class.
        if state["plugin"] is not None:
            find("pipeline.corpora", state["plugin"])
        self.__dict__ |= {**state, "parts": ForkingPickler.loads(state["parts"])}

    def __iter__(self) -> Iterator[Batch | PartEnd]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for number, part in self.parts[first::step]:
            yield from self._part(number, part)

    def _part(self, number: int, part: Part) -> Iterator[Batch | PartEnd]:
        dropped: Counter[str] = Counter()
        found, damage, unreadable, lost, seen = 0, None, False, 1, set[int]()
        rows: list[Row] = []
        samples = iter(part)
        while True:
            try:
                sample = next(samples, None)
            except DamagedPart as error:
                damage, sample = str(error), None
                unreadable, lost = error.transient, error.lost
            except SourceError as error:
                damage, sample = f"{part.name}: {error}", None
            except Exception as error:  # a store's or a user's own part may raise anything
                damage, sample = f"{part.name}: {type(error).__name__}: {error}", None
                unreadable = True
            if sample is None:
                break
            found += 1
            key_hash = hash64(sample.key.encode("utf-8", "surrogateescape"))
            if not sample.ext:
                dropped["no_image"] += 1
                continue
            if key_hash in seen:
                dropped["duplicate_key"] += 1
                continue
            seen.add(key_hash)
            try:
                view, thumb, width, height = probe_image(sample.data, self.geometries[0])
                views = [view, *(load_view(sample.data, other)[0] for other in self.geometries[1:])]
            except BadImage as error:
                dropped[error.reason] += 1
                continue
            sizes = {
                "offset": sample.offset,
                "size": len(sample.data),
                "width": width,
                "height": height,
                "key_hash": hash64(f"{part.name}\0{sample.key}".encode("utf-8", "replace")),
                "content_hash": hash64(sample.data),
            }
            rows.append(Row(sample, views, thumb, sizes))
            if len(rows) == self.batch_size:
                yield _batch(number, rows)
                rows = []
        if rows:
            yield _batch(number, rows)
        if damage:
            dropped["damaged_part"] += lost
            found += lost
        yield PartEnd(number, found, dict(dropped), damage, unreadable)


def _batch(number: int, rows: list[Row]) -> Batch:
    pixels = [
        torch.from_numpy(np.stack(views))
        for views in zip(*(row.views for row in rows), strict=True)
    ]
    columns = {
        name: np.array([row.sizes[name] for row in rows], embeddings.COLUMNS[name])
        for name in rows[0].sizes
    }
    return Batch(
        number,
        pixels,
        np.stack([row.thumb for row in rows]),
        [text_key(row.sample.key) for row in rows],
        [row.sample.ext for row in rows],
        columns,
    )


def read(
    parts: list[tuple[int, Part]],
    geometries: list[Geometry],
    batch_size: int,
    workers: int,
    plugin: str | None = None,
) -> Iterator[Batch | PartEnd]:
    """`Decoded` in `workers` processes (0: in this one).

    Raises ChildProcessError where a decoding process was killed.
    """
    workers = min(workers, len(parts))
    loader = DataLoader(
        Decoded(parts, geometries, batch_size, plugin),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        # Not fork: CUDA and threads live here. Not forkserver: after a kill of this process its
        # children would live on.
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=devices.leave_signals,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ChildProcessError(
            f"a decoding process ended ({error}), killed for want of memory perhaps: run the same "
            "command again, it goes on after the last whole part; fewer --workers need less, "
            "--workers 0 shows an error of its own"
        ) from None
