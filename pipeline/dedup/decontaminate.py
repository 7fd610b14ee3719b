"""Decontamination: find an evaluation set's images in the pool, without reading its labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from indexes.command.progress import Progress
from indexes.images.decode import Geometry, Pixels
from indexes.sources.spec import SourceError
from indexes.vectors.index import Vectors
from pipeline.corpus import Corpus
from pipeline.dedup.near import Groups, Rows, Similarities
from pipeline.dedup.similarity import image_similarity, signatures
from pipeline.embedding.loader import PartEnd, decode_parts

NUM_NEIGHBORS = 32
CANDIDATE_THRESHOLD = 0.7
LEAK_THRESHOLD = 0.88
"""Similarity from which an image counts as a leak. It is lower than that of a near duplicate,
because a missed leak costs more than a few dropped images."""
BLOCK_ROWS = 8192


@dataclass
class Leaks:
    """m pairs of an evaluation image and a pool row that shows it.

    `keys`, `parts` and `thumbs` uint8 [m, WIDTH] describe the evaluation image; `rows` int64 [m] is
    the pool row; `similarity` float32 [m] is the similarity of the two. `num_images` and
    `num_unreadable` count the evaluation images that were and were not decoded.
    """

    num_images: int
    num_unreadable: int
    keys: list[str]
    parts: list[str]
    thumbs: Pixels
    rows: Rows
    similarity: Similarities

    @property
    def num_seen(self) -> int:
        """The number of evaluation images that were found in the pool."""
        return len(set(zip(self.parts, self.keys, strict=True)))


@dataclass(frozen=True)
class LeakedRows:
    """Pool rows `rows` [t]; row i shows image `leak[i]` of `leaks`, with `similarity` [t]."""

    leaks: Leaks
    rows: Rows
    leak: Rows
    similarity: Similarities

    def counts(self) -> dict[str, int]:
        """Return the counts that the card records."""
        leaks = self.leaks
        return {
            "num_images": leaks.num_images,
            "num_unreadable": leaks.num_unreadable,
            "num_seen": leaks.num_seen,
            "num_pairs": len(self.rows),
        }


def find_leaks(
    evaluation: Corpus,
    geometry: Geometry,
    index: Vectors,
    thumbs: Pixels,
    *,
    workers: int = 0,
    device: str = "cpu",
) -> Leaks:
    """Find every pool row that is similar to an image of the evaluation set.

    `index` holds the pool's signatures; `thumbs` are the pool's, uint8 [N, WIDTH]. Memory: one
    block of evaluation images, and the leaks. Raises SourceError if the set cannot be read
    completely, because an unread image might be in the pool.
    """
    leaks = Leaks(0, 0, [], [], thumbs[:0], np.zeros(0, np.int64), np.zeros(0, np.float32))
    with Progress("exclude eval") as progress:
        for keys, parts, eval_thumbs in _blocks(evaluation, geometry, workers, leaks):
            similarity, rows = index.search(signatures(eval_thumbs), NUM_NEIGHBORS)
            image, neighbor = np.nonzero((rows >= 0) & (similarity >= CANDIDATE_THRESHOLD))
            rows = rows[image, neighbor]
            values = image_similarity(eval_thumbs[image], thumbs[rows], device)
            hit = values >= LEAK_THRESHOLD
            leaks.keys += [keys[i] for i in image[hit]]
            leaks.parts += [parts[i] for i in image[hit]]
            leaks.thumbs = np.concatenate([leaks.thumbs, eval_thumbs[image[hit]]])
            leaks.rows = np.concatenate([leaks.rows, rows[hit]])
            leaks.similarity = np.concatenate([leaks.similarity, values[hit]])
            progress.add(len(keys))
    return leaks


def spread_to_groups(
    leaks: Leaks, copies: Groups, near: Groups, thumbs: Pixels, device: str
) -> LeakedRows:
    """Extend the leaks to whole duplicate groups: if one image of a group leaks, all of them do.

    `thumbs` are the pool's, uint8 [N, WIDTH].
    """
    kept = near.canonical(copies.canonical(leaks.rows))
    order = np.lexsort((-leaks.similarity, kept))
    heads, first = np.unique(kept[order], return_index=True)
    members = np.concatenate([heads, near.rows[np.isin(near.kept, heads)]])
    members = np.concatenate([members, copies.rows[np.isin(copies.kept, members)]])
    members = np.setdiff1d(members, leaks.rows)
    group = np.searchsorted(heads, near.canonical(copies.canonical(members)))
    leak = order[first][group]
    similarity = image_similarity(leaks.thumbs[leak], thumbs[members], device)
    return LeakedRows(
        leaks,
        np.concatenate([leaks.rows, members]),
        np.concatenate([np.arange(len(leaks.rows)), leak]),
        np.concatenate([leaks.similarity, similarity]),
    )


def _blocks(
    evaluation: Corpus, geometry: Geometry, workers: int, leaks: Leaks
) -> Iterator[tuple[list[str], list[str], Pixels]]:
    """Yield (keys, part names, thumbs) of about BLOCK_ROWS images and count them in `leaks`."""
    keys: list[str] = []
    parts: list[str] = []
    thumbs: list[Pixels] = []
    numbered = list(enumerate(evaluation.parts))
    plugin = evaluation.spec if evaluation.spec.endswith(".py") else None
    for item in decode_parts(numbered, [geometry], 128, workers, plugin):
        if isinstance(item, PartEnd):
            if item.damage:
                raise SourceError(
                    f"--exclude-eval {evaluation.spec}: {item.damage}. The evaluation set must be "
                    "complete: repair it or download it again"
                )
            leaks.num_unreadable += sum(item.dropped.values())
            continue
        keys += item.keys
        parts += [evaluation.parts[item.part].name] * len(item.keys)
        thumbs.append(item.thumbs)
        leaks.num_images += len(item.keys)
        if len(keys) >= BLOCK_ROWS:
            yield keys, parts, np.concatenate(thumbs)
            keys, parts, thumbs = [], [], []
    if keys:
        yield keys, parts, np.concatenate(thumbs)
    if not leaks.num_images:
        raise SourceError(
            f"--exclude-eval {evaluation.spec}: none of its {leaks.num_unreadable:,} samples is a "
            "readable image; give a set of images, such as a folder"
        )
