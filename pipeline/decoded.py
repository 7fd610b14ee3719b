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
from torch.utils.data import IterableDataset, get_worker_info

from indexes import embeddings
from indexes.artefact import hash64
from indexes.images import BadImage, Geometry, load
from indexes.names import find
from indexes.samples import text_key
from indexes.sources import DamagedPart, Part, Sample, SourceError

Array = npt.NDArray[Any]


@dataclass
class Batch:
    """b decoded images of one part: pixels uint8 [b, S, S, 3] per geometry, columns [b]."""

    part: int
    pixels: list[torch.Tensor]
    keys: list[str]
    exts: list[str]
    columns: dict[str, Array]


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
        rows: list[tuple[Sample, list[Array], dict[str, int]]] = []
        samples = iter(part)
        while True:
            try:
                sample = next(samples, None)
            except DamagedPart as error:
                damage, sample = str(error), None
                unreadable, lost = error.passing, error.lost
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
                loaded = [load(sample.data, geometry) for geometry in self.geometries]
            except BadImage as error:
                dropped[error.reason] += 1
                continue
            sizes = {
                "offset": sample.offset,
                "size": len(sample.data),
                "width": loaded[0][1],
                "height": loaded[0][2],
                "key_hash": hash64(f"{part.name}\0{sample.key}".encode("utf-8", "replace")),
                "content_hash": hash64(sample.data),
            }
            rows.append((sample, [pixels for pixels, _, _ in loaded], sizes))
            if len(rows) == self.batch_size:
                yield _batch(number, rows)
                rows = []
        if rows:
            yield _batch(number, rows)
        if damage:
            dropped["damaged_part"] += lost
            found += lost
        yield PartEnd(number, found, dict(dropped), damage, unreadable)


def _batch(number: int, rows: list[tuple[Sample, list[Array], dict[str, int]]]) -> Batch:
    pixels = [
        torch.from_numpy(np.stack(views)) for views in zip(*(r[1] for r in rows), strict=True)
    ]
    columns = {
        name: np.array([row[2][name] for row in rows], embeddings.COLUMNS[name])
        for name in rows[0][2]
    }
    keys = [text_key(row[0].key) for row in rows]
    return Batch(number, pixels, keys, [row[0].ext for row in rows], columns)
