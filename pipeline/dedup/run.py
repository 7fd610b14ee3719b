"""Deduplication: drop exact copies, near duplicates and evaluation images before any scoring.

The artifact holds `reason.npy` uint8 [N] (see `pool.REASONS`), `pairs.parquet` (every dropped image
and the image kept for it), `protected.parquet` (every image that shows an evaluation image) and a
card with counts.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from indexes import artifact, npy
from indexes.images.decode import Geometry
from pipeline.corpus import Corpus
from pipeline.dedup import report
from pipeline.dedup.decontaminate import LEAK_THRESHOLD, LeakedRows, find_leaks, spread_to_groups
from pipeline.dedup.exact import find_copies
from pipeline.dedup.near import (
    EMPTY,
    GROUP_THRESHOLD,
    NEAR_THRESHOLD,
    Groups,
    Rows,
    find_near_duplicates,
    open_thumbs,
)
from pipeline.dedup.signatures import CANDIDATE_THRESHOLD, NUM_NEIGHBORS, index_pool
from pipeline.pool import REASONS, Pool, chunks

Mode = Literal["off", "exact", "near"]
MODES: tuple[Mode, ...] = ("off", "exact", "near")
# The constants that the outcome depends on, besides the corpus and the options; part of the digest.
CONSTANTS = (NUM_NEIGHBORS, CANDIDATE_THRESHOLD, NEAR_THRESHOLD, GROUP_THRESHOLD, LEAK_THRESHOLD)


@dataclass(frozen=True, kw_only=True)
class DedupSetup:
    """The options of deduplication, and how an evaluation set is read."""

    mode: Mode = "near"
    """exact drops images with equal bytes; near drops similar images as well; off drops none."""
    evaluation: Corpus | None = None
    """The evaluation set. An image of the pool that shows one of its images is dropped together
    with its whole duplicate group."""
    geometry: Geometry
    """The resize and crop with which evaluation images are decoded."""
    device: str = "cpu"
    workers: int = 0


def dedup_rows(pool: Pool, directory: Path, setup: DedupSetup, *, digest: str) -> None:
    """Write the artifact and log a summary.

    Memory: the pairs found, and blocks of bounded size. Raises SourceError if the evaluation set
    cannot be read completely.
    """
    directory.mkdir(parents=True, exist_ok=True)
    copies, near, leaked = detect(pool, directory / "scratch", setup)
    groups = {REASONS[1]: copies if setup.mode != "off" else EMPTY}
    groups[REASONS[2]] = near if setup.mode == "near" else EMPTY
    leaked_rows = leaked.rows if leaked else EMPTY.rows
    rows, reason = drop_reasons(groups[REASONS[1]], groups[REASONS[2]], leaked_rows)
    write_reasons(directory / "reason.npy", len(pool), rows, reason)
    report.write_pairs(pool, directory / "pairs.parquet", groups)
    evaluation = None
    if leaked and setup.evaluation:
        report.write_leaks(pool, directory / "protected.parquet", leaked)
        evaluation = {"name": setup.evaluation.name, **leaked.counts()}
    body: dict[str, Any] = {
        "digest": digest,
        "mode": setup.mode,
        "num_candidates": len(pool) - len(rows),
        "dropped": {name: int((reason == at).sum()) for at, name in enumerate(REASONS) if at},
        "duplicate_rate": sum(len(group.rows) for group in groups.values()) / max(len(pool), 1),
        "similarity": {
            "near": NEAR_THRESHOLD,
            "within_group": GROUP_THRESHOLD,
            "protected": LEAK_THRESHOLD,
        },
        "largest_groups": report.largest_groups(pool, groups[REASONS[2]]),
        "evaluation": evaluation,
    }
    artifact.write_card(directory, "dedup", body)
    report.log_summary(pool, body, leaked)


def detect(
    pool: Pool, scratch: Path, setup: DedupSetup
) -> tuple[Groups, Groups, LeakedRows | None]:
    """Return (exact copies, near duplicates, leaked rows), as far as the setup needs them."""
    if setup.mode == "off" and setup.evaluation is None:
        return EMPTY, EMPTY, None
    copies = find_copies(pool)
    if setup.mode != "near" and setup.evaluation is None:
        return copies, EMPTY, None
    shutil.rmtree(scratch, ignore_errors=True)  # left by a run that was killed
    try:
        index = index_pool(pool, scratch)
        thumbs = open_thumbs(pool, scratch / "thumbs.npy")
        near = find_near_duplicates(pool, thumbs, index, copies, scratch, setup.device)
        if setup.evaluation is None:
            return copies, near, None
        leaks = find_leaks(
            setup.evaluation,
            setup.geometry,
            index,
            thumbs,
            workers=setup.workers,
            device=setup.device,
        )
        return copies, near, spread_to_groups(leaks, copies, near, thumbs, setup.device)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def drop_reasons(
    copies: Groups, near: Groups, leaked_rows: Rows
) -> tuple[Rows, npt.NDArray[np.uint8]]:
    """Return (rows [d] ascending, reason [d]) of every dropped row.

    A row with several reasons gets `protected` first, then `duplicate_content`, then
    `near_duplicate`.
    """
    rows_by_reason = {3: np.unique(leaked_rows), 1: copies.rows, 2: near.rows}
    reasons = np.array(list(rows_by_reason), np.uint8)
    reason = np.repeat(reasons, [len(rows) for rows in rows_by_reason.values()])
    rows, first = np.unique(np.concatenate(list(rows_by_reason.values())), return_index=True)
    return rows, reason[first]


def write_reasons(path: Path, total: int, rows: Rows, reason: npt.NDArray[np.uint8]) -> None:
    """Write `reason.npy` uint8 [total]: the reasons [d] at the dropped rows [d], 0 elsewhere."""
    with npy.writing(path, (total,), np.uint8) as writer:
        for piece in chunks(total):
            values = np.zeros(piece.stop - piece.start, np.uint8)
            low, high = np.searchsorted(rows, (piece.start, piece.stop))
            values[rows[low:high] - piece.start] = reason[low:high]
            writer.write(values)
