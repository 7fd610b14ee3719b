"""A sample of images for measuring an export, prepared as on a device.

Legend: n images, B images of a batch, S the side of the student's input in pixels.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from indexes import artifact
from indexes.images.decode import BadImage, Geometry, Pixels, load_view
from indexes.shards.reader import open_shards
from indexes.sources.sample import DamagedPart
from indexes.sources.spec import open_parts

SEED = 0  # shuffles the images: with a folder per class, a batch must not hold a single class
READ_PER_SAMPLE = 20  # images read from a part for each one taken: a tar may be sorted by class


@dataclass(frozen=True)
class SampleImages:
    """A sample of n encoded images. `dropped`: how many could not be read, by reason."""

    name: str
    geometry: Geometry
    encoded: tuple[bytes, ...]
    dropped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.encoded)

    def batches(self, start: int, stop: int, size: int) -> Iterator[Pixels]:
        """Yield images start to stop in batches of up to `size` images, uint8 [B, S, S, 3]."""
        for low in range(start, min(stop, len(self)), size):
            chunk = self.encoded[low : min(low + size, stop)]
            yield np.stack([load_view(data, self.geometry)[0] for data in chunk])


def noise(num: int, size: int) -> Pixels:
    """Return random pixels, uint8 [num, size, size, 3], for a check without images."""
    return np.random.default_rng(SEED).integers(0, 256, (num, size, size, 3), np.uint8)


def gather_samples(spec: str, num: int, geometry: Geometry) -> SampleImages:
    """Gather up to `num` images from all over a shard set, or a spec that `open_parts` reads.

    Raises SourceError or ArtifactError if `spec` does not exist, ValueError if no image can be
    decoded.
    """
    dropped: Counter[str] = Counter()
    encoded: list[bytes] = []
    for data in _read(spec, num, dropped):
        try:
            load_view(data, geometry)
        except BadImage as error:
            dropped[error.reason] += 1
        else:
            encoded.append(data)
    if not encoded:
        raise ValueError(f"{spec}: no image can be decoded ({dict(dropped)})")
    order = np.random.default_rng(SEED).permutation(len(encoded))[:num]
    return SampleImages(spec, geometry, tuple(encoded[row] for row in order), dict(dropped))


def _read(spec: str, num: int, dropped: Counter[str]) -> Iterator[bytes]:
    """Yield evenly spaced rows of shards, or a reservoir sample of each of evenly spaced parts."""
    if artifact.is_done(spec):
        shards = open_shards(Path(spec))
        for row in _spaced(len(shards), num):
            yield shards.read(row)
        return
    parts = open_parts(spec)
    chosen = [parts[number] for number in _spaced(len(parts), num)]
    per_part = -(-num // len(chosen))
    generator = np.random.default_rng(SEED)
    for part in chosen:
        samples = iter(part)
        reservoir: list[bytes] = []  # holds each image read so far with the same probability
        try:
            for number, sample in enumerate(itertools.islice(samples, READ_PER_SAMPLE * per_part)):
                slot = number if number < per_part else int(generator.integers(number + 1))
                if slot < per_part:
                    reservoir[slot : slot + 1] = [sample.data]
        except DamagedPart as error:
            dropped["damaged_part"] += error.lost
        finally:
            if isinstance(samples, Generator):
                with contextlib.suppress(DamagedPart):
                    samples.close()
        yield from reservoir


def _spaced(num: int, most: int) -> list[int]:
    """Return at most `most` evenly spaced numbers below `num`."""
    return sorted({int(number) for number in np.linspace(0, num - 1, min(num, most))})
