"""Dedup: exact copies, near duplicates and an evaluation set's images go, before any scoring.

The artifact: `reason.npy` uint8 [N] (pool.REASONS), `pairs.parquet` (what was dropped for what),
`protected.parquet` (which evaluation image was seen where) and a card with counts.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from indexes import artifact, npy
from indexes.images.decode import Geometry
from pipeline.corpus import Corpus
from pipeline.dedup import decontaminate, exact, near, report, signatures
from pipeline.dedup.decontaminate import Found
from pipeline.dedup.near import EMPTY, Groups
from pipeline.pool import REASONS, Pool, chunks

Array = npt.NDArray[Any]
Mode = Literal["off", "exact", "near"]
MODES: tuple[Mode, ...] = ("off", "exact", "near")
# What the outcome depends on beside the corpus and the switches; goes into the digest.
CONSTANTS = (
    signatures.NUM_NEIGHBORS,
    signatures.SIMILAR,
    near.NEAR,
    near.GROUP_THRESHOLD,
    decontaminate.LEAKED,
)


def dedup_rows(
    pool: Pool,
    directory: Path,
    mode: Mode,
    evaluation: Corpus | None,
    geometry: Geometry,
    *,
    digest: str,
    device: str = "cpu",
    workers: int = 0,
) -> list[str]:
    """Writes the artifact; returns what a person should know of it, line by line.

    off, exact (equal bytes) or near (alike as well). A protected image takes its whole group with
    it, in any mode. Memory: that of the pairs found, and of bounded blocks.
    """
    directory.mkdir(parents=True, exist_ok=True)
    copied, similar, found = detect(pool, directory, mode, evaluation, geometry, device, workers)
    groups = {REASONS[1]: copied if mode != "off" else EMPTY}
    groups[REASONS[2]] = similar if mode == "near" else EMPTY
    protected_rows = found.rows if found else EMPTY.rows
    rows, why = reasons(groups[REASONS[1]], groups[REASONS[2]], protected_rows)
    write_reasons(directory / "reason.npy", len(pool), rows, why)
    report.write(pool, directory / "pairs.parquet", groups)
    if found:
        report.write_leaks(pool, directory / "protected.parquet", found)
    body = {
        "digest": digest,
        "mode": mode,
        "num_candidates": len(pool) - len(rows),
        "dropped": {name: int((why == at).sum()) for at, name in enumerate(REASONS) if at},
        "duplicate_rate": sum(len(group.rows) for group in groups.values()) / max(len(pool), 1),
        "likeness": {
            "near": near.NEAR,
            "within_group": near.GROUP_THRESHOLD,
            "protected": decontaminate.LEAKED,
        },
        "largest_groups": largest(pool, groups[REASONS[2]]),
        "protect": found and evaluation and {"name": evaluation.name, **found.counts()},
    }
    artifact.write_card(directory, "dedup", body)
    return report.lines(pool, body, found)


def detect(
    pool: Pool,
    directory: Path,
    mode: Mode,
    evaluation: Corpus | None,
    geometry: Geometry,
    device: str,
    workers: int,
) -> tuple[Groups, Groups, Found | None]:
    """(exact copies, near duplicates, protected rows) as far as `mode` and `evaluation` need."""
    if mode == "off" and evaluation is None:
        return EMPTY, EMPTY, None
    copied = exact.find(pool)
    if mode != "near" and evaluation is None:
        return copied, EMPTY, None
    scratch = directory / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    try:
        index = signatures.of_pool(pool, scratch)
        thumbs = near.open_thumbs(pool, scratch / "thumbs.npy")
        similar = near.find(pool, thumbs, index, copied, scratch, device)
        if evaluation is None:
            return copied, similar, None
        leaks = decontaminate.find(evaluation, geometry, index, thumbs, workers, device)
        return copied, similar, decontaminate.spread(leaks, copied, similar, thumbs, device)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def reasons(copied: Groups, similar: Groups, protected_rows: Array) -> tuple[Array, Array]:
    """(rows int64 [d] ascending, reason uint8 [d]) of every dropped row; protected goes first."""
    parts = [np.unique(protected_rows), copied.rows, similar.rows]
    why = np.repeat(np.array([3, 1, 2], np.uint8), [len(part) for part in parts])
    rows, first = np.unique(np.concatenate(parts), return_index=True)
    return rows, why[first]


def write_reasons(path: Path, total: int, rows: Array, why: Array) -> None:
    """`reason.npy` uint8 [total]: 0 but for the dropped rows."""
    with npy.writing(path, (total,), np.uint8) as writer:
        for piece in chunks(total):
            values = np.zeros(piece.stop - piece.start, np.uint8)
            low, high = np.searchsorted(rows, (piece.start, piece.stop))
            values[rows[low:high] - piece.start] = why[low:high]
            writer.write(values)


def largest(pool: Pool, groups: Groups, count: int = 10) -> list[dict[str, Any]]:
    """The kept image and the number of images of the largest groups."""
    kept, sizes = np.unique(groups.kept, return_counts=True)
    order = np.lexsort((kept, -sizes))[:count]
    return [
        {"key": key, "part": part, "images": int(size) + 1}
        for (key, part), size in zip(pool.keys_of(kept[order]), sizes[order], strict=True)
    ]
