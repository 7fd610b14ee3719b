"""Embed: one decode per image, teacher (and tower) in one pass, part by part, resumable."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from indexes import devices, embeddings
from indexes.images.decode import to_unit
from indexes.models.teacher import Teacher
from indexes.progress import Progress
from indexes.shards.writer import FULL_LOGITS
from indexes.sources.spec import Part, SourceError
from pipeline.embedding import loader
from pipeline.embedding.bn_stats import BatchNormStats, to_half
from pipeline.embedding.clip import ClipTower
from pipeline.embedding.loader import Batch, PartEnd

Array = npt.NDArray[Any]
BLOCK_ROWS = 32_768  # bounds the memory of a part in flight, whatever the part's size
TOP_LOGITS = 50


@dataclass
class _Gathered:
    """Rows of one part waiting to become a block."""

    batches: list[tuple[Batch, dict[str, Array]]] = field(default_factory=list)
    rows: int = 0
    blocks: list[int] = field(default_factory=list)
    not_finite: int = 0


def teacher_columns(
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
    kept = {"features": to_half(features)}
    if logits.shape[1] <= FULL_LOGITS:
        kept["logits"] = to_half(logits)
    else:
        top = logits.topk(TOP_LOGITS, dim=1)
        kept["logits"] = to_half(top.values)
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


def embed_parts(
    parts: list[Part],
    teacher: Teacher,
    directory: Path,
    *,
    body: dict[str, Any],
    tower: ClipTower | None = None,
    device: str = "cpu",
    batch_size: int = 128,
    workers: int = 1,
    on_error: str = "continue",
    plugin: str | None = None,
    settings: str = "",
) -> None:
    """Embeds every part that has no done-marker yet into `directory`, then writes its card.

    `settings`: digest of all but the parts that an answer depends on. A part that a directory
    beside this one holds, embedded with the same settings, is taken from there.
    A damaged part keeps what came before the damage, counted as one drop `damaged_part`
    (`on_error="stop"`: SourceError instead). A part that cannot be read now (a store that fails,
    not a damaged file) is no done part: SourceError at the end, and the next run tries it again.
    Memory: a block and the key hashes of one part per worker, whatever the corpus.
    """
    directory.mkdir(parents=True, exist_ok=True)
    prints = [part.fingerprint() for part in parts]
    pending = adopt_parts(parts, prints, directory, settings)
    geometries = [teacher.geometry] + ([tower.geometry] if tower else [])
    gathered: dict[int, _Gathered] = {}
    done, rows_done, failed = 0, 0, list[str]()
    with Progress("embed") as progress, BatchNormStats(teacher) as fingerprint:
        for item in loader.read(pending, geometries, batch_size, workers, plugin):
            part = gathered.setdefault(item.part, _Gathered())
            if isinstance(item, Batch):
                part.not_finite += _forward(part, item, teacher, fingerprint, tower, device)
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
            made_from = {
                "name": parts[item.part].name,
                "fingerprint": prints[item.part],  # as it was before the part was read
                "settings": settings,
            }
            _finish_part(directory, item, made_from, part)
            done, rows_done = done + 1, rows_done + sum(part.blocks)
    if failed:
        raise SourceError(
            f"{len(failed)} of {len(parts)} parts could not be read ({failed[0]}): run the same "
            "command again, only these are tried again"
        )
    embeddings.finish(directory, len(parts), body)


def adopt_parts(
    parts: list[Part], prints: list[str], directory: Path, settings: str
) -> list[tuple[int, Part]]:
    """Links the parts that a sibling of `directory` holds unchanged; the others, with numbers."""
    pending = [
        (number, part)
        for number, part in enumerate(parts)
        if embeddings.part_note(directory, number) is None
    ]
    if not pending:
        return []
    known: dict[tuple[str, str], tuple[Path, int]] = {}
    for sibling in sorted(directory.parent.iterdir()):
        if sibling.is_dir() and sibling != directory:
            known |= {
                (note["name"], note["fingerprint"]): (sibling, number)
                for number, note in embeddings.part_notes(sibling)
                if note.get("settings") == settings
            }
    fresh = []
    for number, part in pending:
        found = known.get((part.name, prints[number]))
        if found is None:
            fresh.append((number, part))
        else:
            embeddings.link_part(*found, directory, number)
    if len(fresh) < len(pending):
        print(f"embed: {len(pending) - len(fresh)} of {len(parts)} parts are embedded already")
    return fresh


def _finish_part(directory: Path, end: PartEnd, made_from: dict[str, str], part: _Gathered) -> None:
    _flush(directory, end.part, part)
    if end.damage:
        print(f"warning: {end.damage}; what came before it is kept")
    dropped = end.dropped | ({"not_finite": part.not_finite} if part.not_finite else {})
    note = {
        **made_from,
        "blocks": part.blocks,
        "found": end.found,
        "dropped": dropped,
        "damage": end.damage,
    }
    embeddings.finish_part(directory, end.part, note)


def _forward(
    part: _Gathered,
    batch: Batch,
    teacher: Teacher,
    fingerprint: BatchNormStats,
    tower: ClipTower | None,
    device: str,
) -> int:
    """Adds a batch and its answers to its part; the number of rows without finite answers."""
    pixels = batch.pixels[0].to(device, non_blocking=True)
    with devices.autocast(device):
        _, features, logits = teacher(to_unit(pixels))
    matrices, columns = teacher_columns(logits, features)
    matrices["thumb"] = batch.thumbs
    matrices |= {name: values.cpu().numpy() for name, values in fingerprint.take().items()}
    batch.columns |= columns
    if tower is not None:
        matrices["tower"] = (
            tower(to_unit(batch.pixels[1].to(device))).to(torch.float16).cpu().numpy()
        )
    batch.pixels, batch.thumbs = [], batch.thumbs[:0]
    whole = np.isfinite(columns["log_odds"]) & np.isfinite(matrices["features"]).all(1)
    if not whole.all():
        rows = np.flatnonzero(whole)
        matrices = {name: matrix[rows] for name, matrix in matrices.items()}
        batch.columns = {name: column[rows] for name, column in batch.columns.items()}
        batch.keys, batch.exts = [batch.keys[r] for r in rows], [batch.exts[r] for r in rows]
    part.batches.append((batch, matrices))
    part.rows += int(whole.sum())
    return int((~whole).sum())


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
