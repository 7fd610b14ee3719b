"""A sample of images to measure an export on, as a device would see them.

n images, B of a batch, S the side of the student's input.
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

SEED = 0  # of the order: a folder per class must not give a batch of one class
NUM_PASSED = 20  # images of a part passed for each one taken: a tar may be sorted by class


@dataclass(frozen=True)
class SampleImages:
    """n images, kept as their own bytes; `dropped` counts those that could not be read."""

    name: str
    geometry: Geometry
    encoded: tuple[bytes, ...]
    dropped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.encoded)

    def batches(self, start: int, stop: int, size: int) -> Iterator[Pixels]:
        """Images start to stop as uint8 [B, S, S, 3], `size` at a time, the last ones fewer."""
        for low in range(start, min(stop, len(self)), size):
            chunk = self.encoded[low : min(low + size, stop)]
            yield np.stack([load_view(data, self.geometry)[0] for data in chunk])


def noise(num: int, size: int) -> Pixels:
    """uint8 [num, size, size, 3]: what a file is checked on where there are no images."""
    return np.random.default_rng(SEED).integers(0, 256, (num, size, size, 3), np.uint8)


def gather_samples(spec: str, num: int, geometry: Geometry) -> SampleImages:
    """Up to `num` images of shards, or of any spec that `open_parts` reads, from all over it.

    Raises SourceError or ArtifactError for what is not there, ValueError where no image is whole.
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
    """Images of evenly spaced rows of shards, or a reservoir sample of evenly spaced parts."""
    if artifact.is_done(spec):
        shards = open_shards(Path(spec))
        for row in _spaced(len(shards), num):
            yield shards.read(row)
        return
    parts = open_parts(spec)
    chosen = [parts[number] for number in _spaced(len(parts), num)]
    each = -(-num // len(chosen))
    generator = np.random.default_rng(SEED)
    for part in chosen:
        samples = iter(part)
        reservoir: list[bytes] = []  # every image seen so far is here with equal chance
        try:
            for seen, sample in enumerate(itertools.islice(samples, NUM_PASSED * each)):
                at = seen if seen < each else int(generator.integers(seen + 1))
                if at < each:
                    reservoir[at : at + 1] = [sample.data]
        except DamagedPart as error:
            dropped["damaged_part"] += error.lost
        finally:
            if isinstance(samples, Generator):
                with contextlib.suppress(DamagedPart):
                    samples.close()
        yield from reservoir


def _spaced(num: int, most: int) -> list[int]:
    """At most `most` of the numbers below `num`, evenly spaced."""
    return sorted({int(at) for at in np.linspace(0, num - 1, min(num, most))})
