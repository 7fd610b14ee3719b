"""Protected: an evaluation set's images, looked for in the pool; its labels are never read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.images.decode import Geometry
from indexes.progress import Progress
from indexes.sources.spec import SourceError
from indexes.vectors.index import Vectors
from pipeline.corpus import Corpus
from pipeline.dedup.near import Groups
from pipeline.dedup.similarity import image_similarity, signatures
from pipeline.embedding.loader import PartEnd, decode_parts

Array = npt.NDArray[Any]
NUM_NEIGHBORS = 32
SIMILAR = 0.7
LEAKED = 0.88
"""Likeness of a leak: below a near duplicate's, for a missed leak costs more than a few images."""
BLOCK_ROWS = 8192


@dataclass
class Leaks:
    """Evaluation image (`keys`, `parts`, `thumbs` uint8 [m, WIDTH]) seen in pool row `rows` [m]."""

    num_images: int
    num_unreadable: int
    keys: list[str]
    parts: list[str]
    thumbs: Array
    rows: Array
    alike: Array

    @property
    def num_seen(self) -> int:
        """Evaluation images that were seen at all."""
        return len(set(zip(self.parts, self.keys, strict=True)))


@dataclass(frozen=True)
class Found:
    """Protected rows `rows` [t], by image `leak[i]` of `leaks`, with likeness `alike` [t]."""

    leaks: Leaks
    rows: Array
    leak: Array
    alike: Array

    def counts(self) -> dict[str, int]:
        """For the card."""
        leaks = self.leaks
        return {
            "num_images": leaks.num_images,
            "num_unreadable": leaks.num_unreadable,
            "num_seen": leaks.num_seen,
            "num_pairs": len(self.rows),
        }


def find(
    evaluation: Corpus,
    geometry: Geometry,
    nearest: Vectors,
    thumbs: Array,
    workers: int,
    device: str,
) -> Leaks:
    """Every pool row that is like an image of the evaluation set.

    Memory: a block of evaluation images and the leaks. Raises SourceError for a set that cannot
    be read whole: it would protect in part only.
    """
    found = Leaks(0, 0, [], [], thumbs[:0], np.zeros(0, np.int64), np.zeros(0, np.float32))
    with Progress("protect") as progress:
        for keys, parts, theirs in _blocks(evaluation, geometry, workers, found):
            similarity, rows = nearest.search(signatures(theirs), NUM_NEIGHBORS)
            image, place = np.nonzero((rows >= 0) & (similarity >= SIMILAR))
            rows = rows[image, place]
            values = image_similarity(theirs[image], thumbs[rows], device)
            hit = values >= LEAKED
            found.keys += [keys[i] for i in image[hit]]
            found.parts += [parts[i] for i in image[hit]]
            found.thumbs = np.concatenate([found.thumbs, theirs[image[hit]]])
            found.rows = np.concatenate([found.rows, rows[hit]])
            found.alike = np.concatenate([found.alike, values[hit]])
            progress.add(len(keys))
    return found


def spread(leaks: Leaks, copied: Groups, similar: Groups, thumbs: Array, device: str) -> Found:
    """Every row whose group an evaluation image was seen in: where one is, all are."""
    kept = similar.canonical(copied.canonical(leaks.rows))
    order = np.lexsort((-leaks.alike, kept))
    heads, first = np.unique(kept[order], return_index=True)
    members = np.concatenate([heads, similar.rows[np.isin(similar.kept, heads)]])
    members = np.concatenate([members, copied.rows[np.isin(copied.kept, members)]])
    members = np.setdiff1d(members, leaks.rows)
    of = np.searchsorted(heads, similar.canonical(copied.canonical(members)))
    leak = order[first][of]
    alike = image_similarity(leaks.thumbs[leak], thumbs[members], device)
    return Found(
        leaks,
        np.concatenate([leaks.rows, members]),
        np.concatenate([np.arange(len(leaks.rows)), leak]),
        np.concatenate([leaks.alike, alike]),
    )


def _blocks(
    evaluation: Corpus, geometry: Geometry, workers: int, count: Leaks
) -> Iterator[tuple[list[str], list[str], Array]]:
    """(keys, part names, thumbs) of about BLOCK_ROWS images; what was read is added to `count`."""
    keys: list[str] = []
    parts: list[str] = []
    thumbs: list[Array] = []
    numbered = list(enumerate(evaluation.parts))
    plugin = evaluation.spec if evaluation.spec.endswith(".py") else None
    for item in decode_parts(numbered, [geometry], 128, workers, plugin):
        if isinstance(item, PartEnd):
            if item.damage:
                raise SourceError(f"--protect {evaluation.spec}: {item.damage}; mend it first")
            count.num_unreadable += sum(item.dropped.values())
            continue
        keys += item.keys
        parts += [evaluation.parts[item.part].name] * len(item.keys)
        thumbs.append(item.thumbs)
        count.num_images += len(item.keys)
        if len(keys) >= BLOCK_ROWS:
            yield keys, parts, np.concatenate(thumbs)
            keys, parts, thumbs = [], [], []
    if keys:
        yield keys, parts, np.concatenate(thumbs)
    if not count.num_images:
        raise SourceError(
            f"--protect {evaluation.spec}: none of its {count.num_unreadable:,} samples is an "
            "image that can be read"
        )
