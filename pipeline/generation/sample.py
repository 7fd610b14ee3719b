"""Sampling of a trained generator: synthetic images with teacher targets, written as shards.

n images of a block, C classes, K stored logits. The blocks are the same in every run. The bytes of
the shards therefore do not depend on how often a run was interrupted.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from indexes import devices
from indexes.artifact import hash64
from indexes.command.progress import Progress
from indexes.images.decode import load_view, to_unit
from indexes.models.teacher import Teacher
from indexes.shards.writer import ShardWriter
from pipeline.embedding.embed import teacher_columns
from pipeline.generation.base import Sampler
from pipeline.write_shards import SHARD_SAMPLES, check_disk

Columns = dict[str, NDArray[Any]]
Keep = Literal["all", "agreeing"]
BLOCK = 128
SOURCE = "synthetic"
MOST_TRIES = 8  # the most images generated per requested image, if not all are kept


@dataclass
class Tally:
    """Counts of generated, dropped and kept images; arrays are int64 [C], one number per class.

    `quota` and `kept` count by requested class, `seen` counts by predicted class, and `agreeing`
    counts the images for which the two are equal.
    """

    quota: NDArray[np.int64]
    kept: NDArray[np.int64]
    seen: NDArray[np.int64]
    generated: int = 0
    agreeing: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, num: int, num_classes: int) -> Tally:
        """Return the tally at the start: a quota of `num` images, balanced over classes."""
        quota = np.full(num_classes, num // num_classes)
        quota[: num % num_classes] += 1
        return cls(quota, np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64))

    def next_classes(self) -> NDArray[np.int64]:
        """Return the next classes to request [N], at most BLOCK; those that lack most come first.

        Example:
            >>> Tally.of(3, num_classes=2).next_classes().tolist()
            [0, 0, 1]
        """
        lacking = self.quota - self.kept
        chosen: list[int] = []
        level = int(lacking.max())
        while level > 0 and len(chosen) < BLOCK:
            chosen += np.flatnonzero(lacking >= level).tolist()
            level -= 1
        return np.array(chosen[:BLOCK], np.int64)

    def drop(self, reason: str, rows: NDArray[np.bool_]) -> None:
        """Count the rows of a mask [N] as dropped for `reason`."""
        self.dropped[reason] = self.dropped.get(reason, 0) + int(rows.sum())

    def funnel(self) -> dict[str, Any]:
        """Return the funnel: images in, dropped by reason, and kept."""
        return {"in": self.generated, "dropped": self.dropped, "kept": int(self.kept.sum())}

    def figures(self) -> dict[str, Any]:
        """Return how often the teacher agrees, and how balanced its predicted classes are."""
        return {
            "agreeing_frac": self.agreeing / max(self.generated, 1),
            "synthetic_histogram": self.seen,
            "largest_to_smallest": float(self.seen.max() / max(int(self.seen.min()), 1)),
        }


@dataclass(frozen=True)
class Block:
    """The kept images of a block: keys, PNG files, columns [n] and matrices [n, K]."""

    keys: list[str]
    pngs: list[bytes]
    columns: Columns
    matrices: Columns

    @classmethod
    def concatenate(cls, blocks: list[Block]) -> Block:
        """Return several blocks as one."""
        first = blocks[0]
        return cls(
            [key for block in blocks for key in block.keys],
            [png for block in blocks for png in block.pngs],
            {n: np.concatenate([block.columns[n] for block in blocks]) for n in first.columns},
            {n: np.concatenate([block.matrices[n] for block in blocks]) for n in first.matrices},
        )

    def rows(self, rows: slice) -> Block:
        """Return a slice of the images."""
        return Block(
            self.keys[rows],
            self.pngs[rows],
            {name: column[rows] for name, column in self.columns.items()},
            {name: matrix[rows] for name, matrix in self.matrices.items()},
        )


def sample_blocks(
    sampler: Sampler, teacher: Teacher, tally: Tally, *, seed: int, keep: Keep, device: str
) -> Iterator[Block]:
    """Sample until every quota is full.

    If not all images are kept, sampling also ends at MOST_TRIES times the requested number.
    """
    most = tally.quota.sum() * (1 if keep == "all" else MOST_TRIES)
    number = 0
    while len(requested := tally.next_classes()[: max(0, most - tally.generated)]):
        random = torch.Generator().manual_seed(hash64(f"{seed} paint {number}".encode()) >> 1)
        pngs = [_png(pixels) for pixels in sampler(torch.from_numpy(requested), random).numpy()]
        first = tally.generated
        tally.generated += len(requested)
        matrices, columns = _targets(pngs, teacher, device)
        finite = np.isfinite(columns["log_odds"]) & np.isfinite(matrices["logits"]).all(1)
        agreeing = finite & (columns["label"] == requested)
        tally.agreeing += int(agreeing.sum())
        tally.seen += np.bincount(columns["label"][finite], minlength=len(tally.quota))
        tally.drop("not_finite", ~finite)
        if keep == "agreeing":
            tally.drop("not_agreeing", finite & ~agreeing)
        kept = np.flatnonzero(agreeing if keep == "agreeing" else finite)
        tally.kept += np.bincount(requested[kept], minlength=len(tally.quota))
        columns |= {"requested": requested, "weight": np.ones(len(requested), np.float32)}
        yield Block(
            [f"{SOURCE}-{first + row:08d}" for row in kept.tolist()],
            [pngs[row] for row in kept.tolist()],
            {name: column[kept] for name, column in columns.items()},
            {name: matrix[kept] for name, matrix in matrices.items() if name != "features"},
        )
        number += 1


def write_synthetic_shards(
    blocks: Iterator[Block],
    tally: Tally,
    teacher: Teacher,
    directory: Path,
    *,
    plan_digest: str,
    side: int,
    shard_samples: int = SHARD_SAMPLES,
) -> dict[str, Any]:
    """Write every shard that is missing, and return the card's description of the files.

    A resumed run generates all images again, but does not rewrite complete shards. Memory: the
    images of one shard. Raises ValueError if no image is kept.
    """
    writer = ShardWriter(directory, plan_digest, teacher.card.classes)
    num = int(tally.quota.sum())
    check_disk(directory, num * 3 * side**2, num)
    waiting: list[Block] = []
    number = 0
    with Progress("generate", num) as progress:
        for block in blocks:
            waiting.append(block)
            progress.add(len(block.keys))
            while sum(len(block.keys) for block in waiting) >= shard_samples:
                joined = Block.concatenate(waiting)
                _write_shard(writer, number, joined.rows(slice(shard_samples)))
                waiting = [joined.rows(slice(shard_samples, None))]
                number += 1
    if any(block.keys for block in waiting):
        _write_shard(writer, number, Block.concatenate(waiting))
        number += 1
    if not number:
        raise ValueError(
            f"{tally.generated:,} images were generated, but the teacher assigns none of them to "
            "its requested class: train the generator longer, or use --keep all"
        )
    return writer.contents(number)


def _write_shard(writer: ShardWriter, number: int, block: Block) -> None:
    if not writer.has(number):
        writer.write(
            number,
            keys=block.keys,
            exts=["png"] * len(block.keys),
            images=block.pngs,
            columns=block.columns,
            logits=block.matrices["logits"],
            logit_classes=block.matrices.get("classes"),
            sources=[SOURCE] * len(block.keys),
        )


def _png(pixels_PP3: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels_PP3).save(buffer, "PNG")
    return buffer.getvalue()


def _targets(pngs: list[bytes], teacher: Teacher, device: str) -> tuple[Columns, Columns]:
    """Return the teacher's outputs for PNG files, decoded as by any reader: matrices, columns."""
    pixels = np.stack([load_view(png, teacher.geometry)[0] for png in pngs])
    with devices.autocast(device):
        _, features, logits = teacher(to_unit(torch.from_numpy(pixels).to(device)))
    return teacher_columns(logits, features)
