"""Reports of deduplication: tables of dropped and kept images, the largest groups, log lines."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indexes import artifact
from pipeline.dedup.decontaminate import LeakedRows
from pipeline.dedup.near import Groups
from pipeline.pool import Pool

log = logging.getLogger(__name__)

IMPLAUSIBLE_FRAC = 0.3
"""Share of the pool above which a drop reason is implausible, and a warning is logged."""
NUM_SHOWN = 3


def write_pairs(pool: Pool, path: Path, groups: Mapping[str, Groups]) -> None:
    """Write a table of every dropped row and the row that is kept for it.

    Columns: reason, key, part, row, kept_key, kept_part, kept_row, similarity. `groups` maps a
    reason to its groups.
    """
    rows = np.concatenate([group.rows for group in groups.values()] or [np.zeros(0, np.int64)])
    kept = np.concatenate([group.kept for group in groups.values()] or [rows])
    similarity = np.concatenate([group.similarity for group in groups.values()] or [rows])
    columns = {
        "reason": [name for name, group in groups.items() for _ in range(len(group.rows))],
        **_key_columns("", pool.keys_of(rows)),
        "row": rows,
        **_key_columns("kept_", pool.keys_of(kept)),
        "kept_row": kept,
        "similarity": similarity.astype(np.float32),
    }
    _write_table(path, columns)


def write_leaks(pool: Pool, path: Path, leaked: LeakedRows) -> None:
    """Write a table of every leaked row and the evaluation image that it shows.

    Columns: evaluation_key, evaluation_part, key, part, row, similarity.
    """
    images = [(leaked.leaks.keys[leak], leaked.leaks.parts[leak]) for leak in leaked.leak]
    columns = {
        **_key_columns("evaluation_", images),
        **_key_columns("", pool.keys_of(leaked.rows)),
        "row": leaked.rows,
        "similarity": leaked.similarity,
    }
    _write_table(path, columns)


def largest_groups(pool: Pool, groups: Groups, most: int = 10) -> list[dict[str, Any]]:
    """Return the kept image and the number of images of each of the `most` largest groups."""
    kept, sizes = np.unique(groups.kept, return_counts=True)
    order = np.lexsort((kept, -sizes))[:most]
    return [
        {"key": key, "part": part, "images": int(size) + 1}
        for (key, part), size in zip(pool.keys_of(kept[order]), sizes[order], strict=True)
    ]


def log_summary(pool: Pool, card: Mapping[str, Any], leaked: LeakedRows | None) -> None:
    """Log the counts by reason, warnings about implausible counts, and the most similar leaks."""
    total, dropped = max(len(pool), 1), card["dropped"]
    counts = ", ".join(f"{count:,} {name}" for name, count in dropped.items())
    log.info("dedup: %s images (%s): %s", f"{len(pool):,}", card["mode"], counts)
    if dropped["near_duplicate"] > IMPLAUSIBLE_FRAC * total:
        group = card["largest_groups"][0]
        log.warning(
            f"{dropped['near_duplicate'] / total:.0%} of the images are near duplicates; "
            f"the largest group has {group['images']:,} images and keeps {group['key']} "
            f"({group['part']}): check pairs.parquet, or keep near duplicates by --dedup exact"
        )
    if dropped["protected"] > IMPLAUSIBLE_FRAC * total:
        log.warning(
            f"{dropped['protected'] / total:.0%} of the images are in the evaluation set: check "
            "whether the evaluation set is part of the corpus"
        )
    if leaked is not None:
        _log_leaks(pool, leaked)


def _log_leaks(pool: Pool, leaked: LeakedRows) -> None:
    leaks = leaked.leaks
    log.info(
        f"dedup: {leaks.num_seen:,} of {leaks.num_images:,} evaluation images appear in "
        f"{len(np.unique(leaked.rows)):,} images of the corpus, listed in protected.parquet"
    )
    most_similar = np.lexsort((leaks.rows, -leaks.similarity))[:NUM_SHOWN]
    names = pool.keys_of(leaks.rows[most_similar])
    for leak, (key, part) in zip(most_similar, names, strict=True):
        image = f"{leaks.keys[leak]} ({leaks.parts[leak]})"
        log.info(f"  {image} in {key} ({part}), similarity {leaks.similarity[leak]:.3f}")


def _key_columns(prefix: str, names: Sequence[tuple[str, str]]) -> dict[str, Any]:
    import pyarrow as pa

    return {
        f"{prefix}key": pa.array([key for key, _ in names], pa.string()),
        f"{prefix}part": pa.array([part for _, part in names], pa.string()),
    }


def _write_table(path: Path, columns: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with artifact.writing(path) as aside:
        pq.write_table(pa.table(columns), aside, compression="zstd")
