"""The loader: worker processes decode the images of a corpus into batches and count defects."""

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

from indexes import devices, embeddings, plugins
from indexes.artifact import hash64
from indexes.images.decode import BadImage, Geometry, Pixels, load_view, probe_image
from indexes.sources.sample import text_key
from indexes.sources.spec import DamagedPart, Part, Sample, SourceError


@dataclass
class Batch:
    """B decoded images of one part.

    `pixels` has a tensor uint8 [B, S, S, 3] per geometry; `thumbs` are uint8
    [B, indexes.images.thumbnails.WIDTH]; `columns` are [B].
    """

    part: int
    pixels: list[torch.Tensor]
    thumbs: Pixels
    keys: list[str]
    exts: list[str]
    columns: dict[str, npt.NDArray[Any]]


@dataclass
class DecodedImage:
    """One decoded image, before it joins a batch."""

    sample: Sample
    views: list[Pixels]
    thumb: Pixels
    numbers: dict[str, int]


@dataclass
class PartEnd:
    """The end of a part: samples read, drops by reason, and the damage that ended it, if any.

    `unreadable` says whether the damage may be transient, so that a later run should try again.
    """

    part: int
    num_samples: int
    dropped: dict[str, int]
    damage: str | None
    unreadable: bool


class DecodedParts(IterableDataset[Batch | PartEnd]):
    """Streams parts as batches; of W workers, worker w reads the parts w, w + W, and so on.

    A batch holds images of one part, in the order of the part. The batches, and therefore the
    output, do not depend on the number of workers.
    """

    def __init__(
        self,
        parts: list[tuple[int, Part]],
        geometries: list[Geometry],
        batch_size: int,
        plugin: str | None = None,
    ) -> None:
        """`plugin` is the user's .py file that defines the class of the parts, if there is one."""
        self.parts, self.geometries, self.batch_size = parts, geometries, batch_size
        self.plugin = plugin

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "parts": ForkingPickler.dumps(self.parts).tobytes()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A worker has to load the user's file before it can unpickle parts of its class.
        if state["plugin"] is not None:
            plugins.find("pipeline.corpora", state["plugin"])
        self.__dict__ |= {**state, "parts": ForkingPickler.loads(state["parts"])}

    def __iter__(self) -> Iterator[Batch | PartEnd]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for number, part in self.parts[first::step]:
            yield from self._part(number, part)

    def _part(self, number: int, part: Part) -> Iterator[Batch | PartEnd]:
        dropped: Counter[str] = Counter()
        damage, unreadable, num_samples, key_hashes = None, False, 0, set[int]()
        images: list[DecodedImage] = []
        samples = iter(part)
        while True:
            try:
                sample = next(samples, None)
            except Exception as error:  # the part of a store or of a user may raise anything
                damage, num_lost, unreadable = _damage(part, error)
                dropped["damaged_part"] += num_lost
                num_samples += num_lost
                break
            if sample is None:
                break
            num_samples += 1
            key_hash = hash64(sample.key.encode("utf-8", "surrogateescape"))
            if not sample.ext:
                dropped["no_image"] += 1
                continue
            if key_hash in key_hashes:
                dropped["duplicate_key"] += 1
                continue
            key_hashes.add(key_hash)
            try:
                images.append(self._decoded(part, sample))
            except BadImage as error:
                dropped[error.reason] += 1
                continue
            if len(images) == self.batch_size:
                yield _batch(number, images)
                images = []
        if images:
            yield _batch(number, images)
        yield PartEnd(number, num_samples, dict(dropped), damage, unreadable)

    def _decoded(self, part: Part, sample: Sample) -> DecodedImage:
        view, thumb, width, height = probe_image(sample.data, self.geometries[0])
        more = [load_view(sample.data, geometry)[0] for geometry in self.geometries[1:]]
        numbers = {
            "offset": sample.offset,
            "size": len(sample.data),
            "width": width,
            "height": height,
            "key_hash": hash64(f"{part.name}\0{sample.key}".encode("utf-8", "replace")),
            "content_hash": hash64(sample.data),
        }
        return DecodedImage(sample, [view, *more], thumb, numbers)


def _damage(part: Part, error: Exception) -> tuple[str, int, bool]:
    """Return (the damage of a part, the number of samples lost, whether a retry may succeed)."""
    if isinstance(error, DamagedPart):
        return str(error), error.lost, error.transient
    if isinstance(error, SourceError):
        return f"{part.name}: {error}", 1, False
    return f"{part.name}: {type(error).__name__}: {error}", 1, True


def _batch(number: int, images: list[DecodedImage]) -> Batch:
    pixels = [
        torch.from_numpy(np.stack(views))
        for views in zip(*(image.views for image in images), strict=True)
    ]
    columns = {
        name: np.array([image.numbers[name] for image in images], embeddings.COLUMNS[name])
        for name in images[0].numbers
    }
    return Batch(
        number,
        pixels,
        np.stack([image.thumb for image in images]),
        [text_key(image.sample.key) for image in images],
        [image.sample.ext for image in images],
        columns,
    )


def decode_parts(
    parts: list[tuple[int, Part]],
    geometries: list[Geometry],
    batch_size: int,
    workers: int,
    plugin: str | None = None,
) -> Iterator[Batch | PartEnd]:
    """Yield the batches and the ends of numbered parts, decoded in `workers` processes.

    With `workers` 0, the calling process decodes. Raises ChildProcessError if a decoding process
    was killed.

    Example::

        for item in decode_parts(list(enumerate(parts)), [Geometry(224)], 128, workers=2):
            images = 0 if isinstance(item, PartEnd) else len(item.keys)
    """
    workers = min(workers, len(parts))
    loader = DataLoader(
        DecodedParts(parts, geometries, batch_size, plugin),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        # Not fork, because this process has threads and CUDA. Not forkserver, whose children
        # outlive this process if it is killed.
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=devices.leave_signals,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ChildProcessError(
            f"a decoding process ended ({error}), perhaps killed for lack of memory: run the same "
            "command again with fewer --workers; it resumes after the last complete part. "
            "--workers 0 shows the decoder's error. A script must start its work under "
            "`if __name__ == '__main__':`"
        ) from None
