"""Embed: one decode per image, teacher (and tower) in one pass, part by part, resumable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from indexes import devices, embeddings
from indexes.artefact import hash64
from indexes.images import BadImage, Geometry, load
from indexes.names import find
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
    unreadable: bool


@dataclass
class _Gathered:
    """Rows of one part waiting to become a block."""

    batches: list[tuple[Batch, dict[str, Array]]] = field(default_factory=list)
    rows: int = 0
    blocks: list[int] = field(default_factory=list)
    not_finite: int = 0


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
    kept = {"features": features.clamp(-65504, 65504).to(torch.float16)}
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
    plugin: str | None = None,
) -> None:
    """Embeds every part that has no done-marker yet into `directory`, then writes its card.

    A damaged part keeps what came before the damage, counted as one drop `damaged_part`
    (`on_error="stop"`: SourceError instead). A part that cannot be read now (a store that fails,
    not a damaged file) is no done part: SourceError at the end, and the next run tries it again.
    Memory: a block and the key hashes of one part per worker, whatever the corpus.
    """
    directory.mkdir(parents=True, exist_ok=True)
    notes = [embeddings.part_note(directory, number) for number in range(len(parts))]
    pending = [(n, part) for n, part in enumerate(parts) if notes[n] is None]
    geometries = [teacher.geometry] + ([tower.geometry] if tower else [])
    workers = min(workers, len(pending))
    loader = DataLoader(
        Decoded(pending, geometries, batch_size, plugin),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        # Not fork: CUDA and threads live here. Not forkserver: after a kill of this process its
        # children would live on.
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=devices.leave_interrupts,
    )
    gathered: dict[int, _Gathered] = {}
    done, rows_done, failed = 0, 0, list[str]()
    with Progress("embed") as progress:
        for item in _alive(loader):
            part = gathered.setdefault(item.part, _Gathered())
            if isinstance(item, Batch):
                part.not_finite += _forward(part, item, teacher, tower, device)
                if part.rows >= BLOCK_ROWS:
                    _flush(directory, item.part, part)
                # Parts seen so far tell how many images the rest may hold.
                frac = progress.done * done / max(rows_done * len(pending), 1)
                progress.add(len(item.keys), frac=frac, note=f"({done} of {len(pending)} parts)")
                continue
            if item.damage and on_error == "stop":
                raise SourceError(f"{item.damage}; mend or remove it (or use --on-error continue)")
            del gathered[item.part]
            if item.unreadable:
                failed.append(str(item.damage))
                continue
            _finish_part(directory, item, parts[item.part].name, part)
            done, rows_done = done + 1, rows_done + sum(part.blocks)
    if failed:
        raise SourceError(
            f"{len(failed)} of {len(parts)} parts could not be read ({failed[0]}): run the same "
            "command again, only these are tried again"
        )
    embeddings.finish(directory, len(parts), body)


def _finish_part(directory: Path, end: PartEnd, name: str, part: _Gathered) -> None:
    _flush(directory, end.part, part)
    if end.damage:
        print(f"warning: {end.damage}; what came before it is kept")
    dropped = end.dropped | ({"not_finite": part.not_finite} if part.not_finite else {})
    note = {"name": name, "blocks": part.blocks, "found": end.found}
    embeddings.finish_part(directory, end.part, {**note, "dropped": dropped, "damage": end.damage})


def _alive(loader: DataLoader[Batch | PartEnd]) -> Iterator[Batch | PartEnd]:
    """The loader's items; ChildProcessError where a decoding process was killed."""
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


def _forward(
    part: _Gathered, batch: Batch, teacher: Teacher, tower: Tower | None, device: str
) -> int:
    """Adds a batch and its answers to its part; the number of rows without finite answers."""
    pixels = batch.pixels[0].to(device, non_blocking=True)
    with devices.autocast(device):
        _, features, logits = teacher(unit(pixels))
    matrices, columns = answers(logits, features)
    batch.columns |= columns
    if tower is not None:
        matrices["tower"] = tower(unit(batch.pixels[1].to(device))).to(torch.float16).cpu().numpy()
    batch.pixels = []
    whole = np.isfinite(columns["log_odds"]) & np.isfinite(matrices["features"]).all(1)
    if not whole.all():
        rows = np.flatnonzero(whole)
        matrices = {name: matrix[rows] for name, matrix in matrices.items()}
        batch.columns = {name: column[rows] for name, column in batch.columns.items()}
        batch.keys, batch.exts = [batch.keys[r] for r in rows], [batch.exts[r] for r in rows]
    part.batches.append((batch, matrices))
    part.rows += int(whole.sum())
    return int((~whole).sum())


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
