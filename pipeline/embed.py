"""Embed: one decode per image, teacher (and tower) in one pass, part by part, resumable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from indexes import devices, embeddings
from indexes.artefact import hash64
from indexes.images import BadImage, Geometry, load
from indexes.progress import Progress
from indexes.shards import FULL_LOGITS
from indexes.sources import DamagedPart, Part, Sample, SourceError
from indexes.teachers import Teacher
from pipeline.tower import Tower

Array = npt.NDArray[Any]
BLOCK_ROWS = 32_768  # bounds the memory of a part in flight, whatever the part's size
TOP_LOGITS = 50


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


@dataclass
class _Gathered:
    """Rows of one part waiting to become a block."""

    batches: list[tuple[Batch, dict[str, Array]]] = field(default_factory=list)
    rows: int = 0
    blocks: list[int] = field(default_factory=list)


class Decoded(IterableDataset[Batch | PartEnd]):
    """Streams whole parts, part w, w + W, ... in worker w of W, as batches in the part's order.

    The batches of a part do not depend on the number of workers, so neither do the bytes out.
    """

    def __init__(
        self, parts: list[tuple[int, Part]], geometries: list[Geometry], batch_size: int
    ) -> None:
        self.parts, self.geometries, self.batch_size = parts, geometries, batch_size

    def __iter__(self) -> Iterator[Batch | PartEnd]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for number, part in self.parts[first::step]:
            yield from self._part(number, part)

    def _part(self, number: int, part: Part) -> Iterator[Batch | PartEnd]:
        dropped: Counter[str] = Counter()
        found, damage, seen = 0, None, set[int]()
        rows: list[tuple[Sample, list[Array], dict[str, int]]] = []
        samples = iter(part)
        while True:
            try:
                sample = next(samples, None)
            except DamagedPart as error:
                damage, sample = str(error), None
            except (OSError, SourceError) as error:
                damage, sample = f"{part.name}: {error}", None
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
            dropped["damaged_part"] += 1
            found += 1
        yield PartEnd(number, found, dict(dropped), damage)


def _batch(number: int, rows: list[tuple[Sample, list[Array], dict[str, int]]]) -> Batch:
    pixels = [
        torch.from_numpy(np.stack(views)) for views in zip(*(r[1] for r in rows), strict=True)
    ]
    columns = {
        name: np.array([row[2][name] for row in rows], embeddings.COLUMNS[name])
        for name in rows[0][2]
    }
    keys = [row[0].key.encode("utf-8", "backslashreplace").decode() for row in rows]
    return Batch(number, pixels, keys, [row[0].ext for row in rows], columns)


def answers(
    logits: torch.Tensor, features: torch.Tensor
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Matrices and columns that are kept of logits [b, C] and features [b, D].

    log_odds = t_y - logsumexp over the other classes: the order of max p without its ties in
    float32 (OURS). entropy in nats. With one class log-odds are its logit.
    """
    logits = logits.float()
    label = logits.argmax(1)
    best = logits.gather(1, label[:, None]).squeeze(1)
    rest = logits.scatter(1, label[:, None], -torch.inf)
    others = rest.logsumexp(1) if logits.shape[1] > 1 else torch.zeros_like(best)
    log_p = logits.log_softmax(1)
    kept = {"features": features.to(torch.float16)}
    if logits.shape[1] <= FULL_LOGITS:
        kept["logits"] = logits.clamp(-65504, 65504).to(torch.float16)
    else:
        top = logits.topk(TOP_LOGITS, dim=1)
        kept["logits"] = top.values.clamp(-65504, 65504).to(torch.float16)
        kept["classes"] = top.indices.to(torch.int32)
    columns = {
        "label": label.to(torch.int32),
        "log_odds": best - others,
        "logsumexp": logits.logsumexp(1),
        "entropy": -(log_p.exp() * log_p).nan_to_num(0.0).sum(1),
    }
    return (
        {name: value.cpu().numpy() for name, value in kept.items()},
        {name: value.cpu().numpy() for name, value in columns.items()},
    )


def embed(
    parts: list[Part],
    teacher: Teacher,
    directory: Path,
    *,
    body: dict[str, Any],
    tower: Tower | None = None,
    device: str = "cpu",
    batch_size: int = 128,
    workers: int = 1,
    on_error: str = "continue",
) -> None:
    """Embeds every part that has no done-marker yet into `directory`, then writes its card.

    A damaged part keeps what came before the damage, counted as one drop `damaged_part`
    (`on_error="stop"`: SourceError instead). Memory: a block per worker, whatever the corpus.
    """
    directory.mkdir(parents=True, exist_ok=True)
    notes = [embeddings.part_note(directory, number) for number in range(len(parts))]
    pending = [(n, part) for n, part in enumerate(parts) if notes[n] is None]
    geometries = [teacher.geometry] + ([tower.geometry] if tower else [])
    workers = min(workers, len(pending))
    loader = DataLoader(
        Decoded(pending, geometries, batch_size),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        # Not fork: CUDA and threads live here. Not forkserver: after a kill of this process its
        # children would live on.
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=devices.leave_interrupts,
    )
    gathered: dict[int, _Gathered] = {}
    done = before = len(parts) - len(pending)
    with Progress("embed") as progress:
        for item in _alive(loader):
            part = gathered.setdefault(item.part, _Gathered())
            if isinstance(item, Batch):
                part.batches.append((item, _forward(item, teacher, tower, device)))
                part.rows += len(item.keys)
                progress.add(len(item.keys), note=f"(part {done + 1} of {len(parts)})")
                if part.rows >= BLOCK_ROWS:
                    _flush(directory, item.part, part)
                continue
            if item.damage and on_error == "stop":
                raise SourceError(f"{item.damage}; mend or remove it (or use --on-error continue)")
            _flush(directory, item.part, part)
            done += 1
            progress.add(0, frac=(done - before) / len(pending))
            if item.damage:
                print(f"warning: {item.damage}; what came before it is kept")
            note = {
                "name": parts[item.part].name,
                "blocks": part.blocks,
                "found": item.found,
                "dropped": item.dropped,
                "damage": item.damage,
            }
            embeddings.finish_part(directory, item.part, note)
            del gathered[item.part]
    embeddings.finish(directory, len(parts), body)


def _alive(loader: DataLoader[Batch | PartEnd]) -> Iterator[Batch | PartEnd]:
    """The loader's items; ChildProcessError where a decoding process was killed."""
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ChildProcessError(
            f"a decoding process was killed ({error}), for want of memory perhaps: run the same "
            "command again, it goes on after the last whole part; fewer --workers need less"
        ) from None


def _forward(batch: Batch, teacher: Teacher, tower: Tower | None, device: str) -> dict[str, Array]:
    pixels = batch.pixels[0].to(device, non_blocking=True)
    with devices.autocast(device):
        _, features, logits = teacher(unit(pixels))
    matrices, columns = answers(logits, features)
    batch.columns |= columns
    if tower is not None:
        matrices["tower"] = tower(unit(batch.pixels[1].to(device))).to(torch.float16).cpu().numpy()
    return matrices


def unit(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in [0, 1], channels_last in memory."""
    return pixels.permute(0, 3, 1, 2).float().div_(255)


def _flush(directory: Path, number: int, part: _Gathered) -> None:
    if not part.rows:
        return
    batches = [batch for batch, _ in part.batches]
    names = part.batches[0][1]
    matrices = {name: np.concatenate([kept[name] for _, kept in part.batches]) for name in names}
    columns = {
        name: np.concatenate([batch.columns[name] for batch in batches])
        for name in embeddings.COLUMNS
    }
    strings = {
        "key": [key for batch in batches for key in batch.keys],
        "ext": [ext for batch in batches for ext in batch.exts],
    }
    embeddings.write_block(directory, number, len(part.blocks), matrices, columns, strings)
    part.blocks.append(part.rows)
    part.batches, part.rows = [], 0
