"""Embedding: decode each image once, run teacher and tower on it, part by part and resumable."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from indexes import devices, embeddings
from indexes.command.progress import Progress
from indexes.images.decode import Geometry, to_unit
from indexes.logits import FULL_LOGITS, STORED_LOGITS, to_half
from indexes.models.teacher import Teacher
from indexes.sources.spec import Part, SourceError
from pipeline.embedding.bn_stats import BatchNormStats
from pipeline.embedding.clip import ClipTower
from pipeline.embedding.loader import Batch, PartEnd, decode_parts

log = logging.getLogger(__name__)

Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """The nets that embed images, their device, and how the images are read."""

    teacher: Teacher
    tower: ClipTower | None = None
    device: str = "cpu"
    batch_size: int = 128
    workers: int = 1
    """The number of decoding processes. With 0, the main process decodes."""
    block_rows: int = 32_768
    """Rows per block. It bounds the memory for a part, whatever the size of the part."""
    on_error: str = "continue"
    """The reaction to a damaged part: `continue` counts a drop, `stop` raises SourceError."""
    plugin: str | None = None
    """The user's .py file that defines the corpus, if there is one."""

    @property
    def geometries(self) -> list[Geometry]:
        """The geometries (resize and crop) of the teacher and, if given, of the tower."""
        return [net.geometry for net in (self.teacher, self.tower) if net is not None]


@dataclass
class _PartBuffer:
    """The rows of one part that wait for the next block, and counts of the rows before them."""

    batches: list[tuple[Batch, Columns]] = field(default_factory=list)
    num_rows: int = 0
    block_sizes: list[int] = field(default_factory=list)
    num_not_finite: int = 0

    def append(self, batch: Batch, matrices: Columns) -> None:
        """Add the rows whose log-odds and features are finite, and count the others."""
        finite = np.isfinite(batch.columns["log_odds"]) & np.isfinite(matrices["features"]).all(1)
        if not finite.all():
            rows = np.flatnonzero(finite)
            matrices = {name: matrix[rows] for name, matrix in matrices.items()}
            batch.columns = {name: column[rows] for name, column in batch.columns.items()}
            batch.keys, batch.exts = [batch.keys[r] for r in rows], [batch.exts[r] for r in rows]
        self.batches.append((batch, matrices))
        self.num_rows += int(finite.sum())
        self.num_not_finite += int((~finite).sum())

    def flush(self, directory: Path, part: int) -> None:
        """Write the rows as the next block of the part."""
        if not self.num_rows:
            return
        batches = [batch for batch, _ in self.batches]
        matrices = {
            name: np.concatenate([matrices[name] for _, matrices in self.batches])
            for name in self.batches[0][1]
        }
        columns = {
            name: np.concatenate([batch.columns[name] for batch in batches])
            for name in embeddings.COLUMNS
        }
        strings = {
            "key": [key for batch in batches for key in batch.keys],
            "ext": [ext for batch in batches for ext in batch.exts],
        }
        number = len(self.block_sizes)
        embeddings.write_block(directory, part, number, matrices, columns, strings)
        self.block_sizes.append(self.num_rows)
        self.batches, self.num_rows = [], 0


def embed_parts(
    parts: list[Part],
    embedder: Embedder,
    directory: Path,
    *,
    settings: str = "",
    body: dict[str, Any],
) -> None:
    """Embed every part that has no manifest yet into `directory`, then write its card.

    `settings` is the digest of everything but the parts that the embedding depends on. A part that
    a sibling of `directory` holds with the same settings is linked from there. `body` holds fields
    of the card. Memory: per worker, one block and the key hashes of one part, whatever the corpus.

    The images before the damage of a damaged part are kept, and the damage counts as a drop
    `damaged_part`. Raises SourceError for a damaged part with `on_error="stop"`, and, after all
    other parts, if a part cannot be read at present, such as on a failing store. The next run tries
    that part again.
    """
    directory.mkdir(parents=True, exist_ok=True)
    fingerprints = [part.fingerprint() for part in parts]  # taken before any part is read
    pending = adopt_parts(parts, fingerprints, directory, settings)
    buffers: dict[int, _PartBuffer] = {}
    num_done, rows_done, unreadable = 0, 0, list[str]()
    with Progress("embed") as progress, BatchNormStats(embedder.teacher) as bn_stats:
        for item in decode_parts(
            pending, embedder.geometries, embedder.batch_size, embedder.workers, embedder.plugin
        ):
            buffer = buffers.setdefault(item.part, _PartBuffer())
            if isinstance(item, Batch):
                buffer.append(item, embed_batch(item, embedder, bn_stats))
                if buffer.num_rows >= embedder.block_rows:
                    buffer.flush(directory, item.part)
                # The rest is estimated by the mean number of images of the parts read so far.
                frac = progress.done * num_done / max(rows_done * len(pending), 1)
                note = f"({num_done} of {len(pending)} parts)"
                progress.add(len(item.keys), frac=frac, note=note)
                continue
            if item.damage and embedder.on_error == "stop":
                raise SourceError(
                    f"{item.damage}; repair or remove the file, or use --on-error continue"
                )
            del buffers[item.part]
            if item.unreadable:
                unreadable.append(str(item.damage))
                continue
            made_from = {
                "name": parts[item.part].name,
                "fingerprint": fingerprints[item.part],
                "settings": settings,
            }
            _finish_part(directory, item, made_from, buffer)
            num_done, rows_done = num_done + 1, rows_done + sum(buffer.block_sizes)
    if unreadable:
        raise SourceError(
            f"{len(unreadable)} of {len(parts)} parts could not be read ({unreadable[0]}): run the "
            "same command again to retry these parts alone"
        )
    embeddings.finish(directory, len(parts), body)


def embed_batch(batch: Batch, embedder: Embedder, bn_stats: BatchNormStats) -> Columns:
    """Embed the B images of a batch and return their matrices [B, ...].

    The columns [B] are added to `batch.columns`, and the pixels of the batch are released.
    """
    device, tower = embedder.device, embedder.tower
    pixels = batch.pixels[0].to(device, non_blocking=True)
    with devices.autocast(device):
        _, features, logits = embedder.teacher(to_unit(pixels))
    matrices, columns = teacher_columns(logits, features)
    matrices["thumb"] = batch.thumbs
    matrices |= {name: values.cpu().numpy() for name, values in bn_stats.pop().items()}
    batch.columns |= columns
    if tower is not None:
        vectors = tower(to_unit(batch.pixels[1].to(device)))
        matrices["tower"] = vectors.to(torch.float16).cpu().numpy()
    batch.pixels, batch.thumbs = [], batch.thumbs[:0]
    return matrices


def teacher_columns(logits: torch.Tensor, features: torch.Tensor) -> tuple[Columns, Columns]:
    """Return the matrices [B, ...] and columns [B] that are stored of logits and features.

    logits: [B, C]. features: [B, D]. log_odds = t_y - logsumexp over the other classes, which has
    the same order as max p but no ties in float32 (OURS). entropy is in nats. With a single class,
    log_odds is its logit.

    Example:
        >>> matrices, columns = teacher_columns(torch.tensor([[2.0, 0.0]]), torch.zeros(1, 4))
        >>> float(columns["log_odds"][0]), int(columns["label"][0])
        (2.0, 0)
    """
    logits = logits.float()
    label = logits.argmax(1)
    best = logits.gather(1, label[:, None]).squeeze(1)
    rest = logits.scatter(1, label[:, None], -torch.inf)
    others = rest.logsumexp(1) if logits.shape[1] > 1 else torch.zeros_like(best)
    log_p = logits.log_softmax(1)
    matrices = {"features": to_half(features)}
    if logits.shape[1] <= FULL_LOGITS:
        matrices["logits"] = to_half(logits)
    else:
        top = logits.topk(STORED_LOGITS, dim=1)
        matrices["logits"] = to_half(top.values)
        matrices["classes"] = top.indices.to(torch.int32)
    columns = {
        "label": label.to(torch.int32),
        "log_odds": best - others,
        "logsumexp": logits.logsumexp(1),
        "entropy": -(log_p.exp() * log_p).nan_to_num(0.0).sum(1),
    }
    return (
        {name: value.cpu().numpy() for name, value in matrices.items()},
        {name: value.cpu().numpy() for name, value in columns.items()},
    )


def adopt_parts(
    parts: list[Part], fingerprints: list[str], directory: Path, settings: str
) -> list[tuple[int, Part]]:
    """Link the parts that a sibling of `directory` holds; return the other parts with numbers."""
    pending = [
        (number, part)
        for number, part in enumerate(parts)
        if embeddings.part_manifest(directory, number) is None
    ]
    if not pending:
        return []
    embedded: dict[tuple[str, str], tuple[Path, int]] = {}
    for sibling in sorted(directory.parent.iterdir()):
        if sibling.is_dir() and sibling != directory:
            embedded |= {
                (manifest["name"], manifest["fingerprint"]): (sibling, number)
                for number, manifest in embeddings.part_manifests(sibling)
                if manifest.get("settings") == settings
            }
    fresh = []
    for number, part in pending:
        source = embedded.get((part.name, fingerprints[number]))
        if source is None:
            fresh.append((number, part))
        else:
            embeddings.link_part(*source, directory, number)
    if len(fresh) < len(pending):
        num_linked = len(pending) - len(fresh)
        log.info("embed: %d of %d parts are embedded already", num_linked, len(parts))
    return fresh


def _finish_part(
    directory: Path, end: PartEnd, made_from: dict[str, str], buffer: _PartBuffer
) -> None:
    buffer.flush(directory, end.part)
    if end.damage:
        log.warning("%s; the samples before the damage are kept", end.damage)
    not_finite = {"not_finite": buffer.num_not_finite} if buffer.num_not_finite else {}
    manifest = {
        **made_from,
        "blocks": buffer.block_sizes,
        "found": end.num_samples,
        "dropped": end.dropped | not_finite,
        "damage": end.damage,
    }
    embeddings.finish_part(directory, end.part, manifest)
