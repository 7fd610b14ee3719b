"""A trained generator paints: images with the teacher's answers, through the contract of shards.

n images of a block, C classes, K stored logits. Blocks are always the same, so that the bytes are,
however often a run was cut off.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from indexes import devices
from indexes.artifact import hash64
from indexes.images.decode import load_view, to_unit
from indexes.models.teacher import Teacher
from indexes.progress import Progress
from indexes.shards.writer import ShardWriter
from pipeline.embedding.embed import teacher_columns
from pipeline.generation.base import Sampler
from pipeline.write_shards import SHARD_SAMPLES, check_disk

Array = npt.NDArray[Any]
Keep = Literal["all", "intended"]
BLOCK = 128
SOURCE = "synthetic"
MOST_TRIES = 8  # images painted for each one asked for, where not all are kept


@dataclass
class Tally:
    """What was painted, and what became of it; [C] by class."""

    quota: Array
    kept: Array
    """By the class asked for."""
    seen: Array
    """By the teacher's class."""
    painted: int = 0
    as_asked: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, num: int, num_classes: int) -> Tally:
        """Nothing yet of `num` images, even over the classes."""
        quota = np.full(num_classes, num // num_classes)
        quota[: num % num_classes] += 1
        zeros = np.zeros(num_classes, np.int64)
        return cls(quota, zeros, zeros.copy())

    def next_classes(self) -> Array:
        """The classes to ask for now, at most BLOCK: those that lack most first; [n]."""
        lacking = self.quota - self.kept
        chosen: list[int] = []
        level = int(lacking.max())
        while level > 0 and len(chosen) < BLOCK:
            chosen += np.flatnonzero(lacking >= level).tolist()
            level -= 1
        return np.array(chosen[:BLOCK], np.int64)

    def funnel(self) -> dict[str, Any]:
        """In, dropped by reason, kept."""
        return {"in": self.painted, "dropped": self.dropped, "kept": int(self.kept.sum())}

    def figures(self) -> dict[str, Any]:
        """How often the teacher sees the class asked for, and how even its classes are."""
        return {
            "as_asked_frac": self.as_asked / max(self.painted, 1),
            "painted_histogram": self.seen,
            "largest_to_smallest": float(self.seen.max() / max(int(self.seen.min()), 1)),
        }


@dataclass(frozen=True)
class Block:
    """The kept ones of a block: keys, PNGs, columns and logits, [n] each."""

    keys: list[str]
    pngs: list[bytes]
    columns: dict[str, Array]
    matrices: dict[str, Array]


def sample_blocks(
    painter: Sampler, teacher: Teacher, tally: Tally, *, seed: int, keep: Keep, device: str
) -> Iterator[Block]:
    """Paints until every quota is full, or, where not all is kept, MOST_TRIES as many."""
    most = tally.quota.sum() * (1 if keep == "all" else MOST_TRIES)
    number = 0
    while len(asked := tally.next_classes()[: max(0, most - tally.painted)]):
        random = torch.Generator().manual_seed(hash64(f"{seed} paint {number}".encode()) >> 1)
        pixels = painter(torch.from_numpy(asked), random).numpy()
        pngs = [_png(one) for one in pixels]
        first = tally.painted
        tally.painted += len(asked)
        matrices, columns = _answers(pngs, teacher, device)
        fine = np.isfinite(columns["log_odds"]) & np.isfinite(matrices["logits"]).all(1)
        same = fine & (columns["label"] == asked)
        tally.as_asked += int(same.sum())
        tally.seen += np.bincount(columns["label"][fine], minlength=len(tally.quota))
        kept = np.flatnonzero(same if keep == "intended" else fine)
        for reason, lost in (("not_finite", ~fine), ("not_intended", fine & ~same)):
            if keep == "intended" or reason == "not_finite":
                tally.dropped[reason] = tally.dropped.get(reason, 0) + int(lost.sum())
        tally.kept += np.bincount(asked[kept], minlength=len(tally.quota))
        columns |= {"intended": asked, "weight": np.ones(len(asked), np.float32)}
        yield Block(
            [f"{SOURCE}-{first + row:08d}" for row in kept.tolist()],
            [pngs[row] for row in kept.tolist()],
            {name: column[kept] for name, column in columns.items()},
            {name: matrix[kept] for name, matrix in matrices.items() if name != "features"},
        )
        number += 1


def write_generated_shards(
    painted: Iterator[Block],
    tally: Tally,
    teacher: Teacher,
    directory: Path,
    *,
    plan_digest: str,
    side: int,
    body: Mapping[str, Any],
) -> None:
    """Writes every shard that is not there yet, then the card with funnel and figures.

    What was painted before a cut is painted again, its whole shards are not written again.
    Memory: the images of one shard.
    """
    writer = ShardWriter(directory, plan_digest, teacher.card.classes)
    num = int(tally.quota.sum())
    check_disk(directory, num * 3 * side**2, num)
    waiting: list[Block] = []
    number = 0
    with Progress("paint", num) as progress:
        for block in painted:
            waiting.append(block)
            progress.add(len(block.keys))
            while sum(len(one.keys) for one in waiting) >= SHARD_SAMPLES:
                waiting = _write_one(writer, number, waiting)
                number += 1
    if any(one.keys for one in waiting):
        _write_one(writer, number, waiting)
        number += 1
    if not number:
        raise ValueError(
            f"{tally.painted:,} images were painted, the teacher sees the class asked for in none: "
            "the generator has learned too little; train longer, or --keep all"
        )
    writer.finish(number, {**body, **tally.figures(), "funnel": tally.funnel()})


def _write_one(writer: ShardWriter, number: int, waiting: list[Block]) -> list[Block]:
    """One shard from the first SHARD_SAMPLES images of `waiting`; what is left over."""
    keys = [key for one in waiting for key in one.keys]
    pngs = [png for one in waiting for png in one.pngs]
    columns = {n: np.concatenate([one.columns[n] for one in waiting]) for n in waiting[0].columns}
    matrices = {
        n: np.concatenate([one.matrices[n] for one in waiting]) for n in waiting[0].matrices
    }
    some, rest = slice(SHARD_SAMPLES), slice(SHARD_SAMPLES, None)
    if not writer.has(number):
        writer.write(
            number,
            keys=keys[some],
            exts=["png"] * len(keys[some]),
            images=pngs[some],
            columns={name: column[some] for name, column in columns.items()},
            logits=matrices["logits"][some],
            logit_classes=matrices["classes"][some] if "classes" in matrices else None,
            sources=[SOURCE] * len(keys[some]),
        )
    return [
        Block(
            keys[rest],
            pngs[rest],
            {name: column[rest] for name, column in columns.items()},
            {name: matrix[rest] for name, matrix in matrices.items()},
        )
    ]


def _png(pixels_PP3: Array) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels_PP3).save(buffer, "PNG")
    return buffer.getvalue()


def _answers(
    pngs: list[bytes], teacher: Teacher, device: str
) -> tuple[dict[str, Array], dict[str, Array]]:
    """What the teacher says of the files as any reader decodes them: matrices and columns."""
    pixels = np.stack([load_view(png, teacher.geometry)[0] for png in pngs])
    with devices.autocast(device):
        _, features, logits = teacher(to_unit(torch.from_numpy(pixels).to(device)))
    return teacher_columns(logits, features)
