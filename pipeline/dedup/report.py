"""Pairs: what was dropped for what, as Parquet tables, and the lines that a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes import artifact
from pipeline.dedup.decontaminate import Found
from pipeline.dedup.near import Groups
from pipeline.pool import Pool

Array = npt.NDArray[Any]
IMPLAUSIBLE = 0.3
"""Share of the pool above which a reason is complained of."""
SHOWN = 3


def write(pool: Pool, path: Path, groups: Mapping[str, Groups]) -> None:
    """Every dropped row by reason: key, part, row, kept_key, kept_part, kept_row, similarity."""
    rows = np.concatenate([group.rows for group in groups.values()] or [np.zeros(0, np.int64)])
    kept = np.concatenate([group.kept for group in groups.values()] or [rows])
    alike = np.concatenate([group.alike for group in groups.values()] or [rows])
    columns = {
        "reason": [name for name, group in groups.items() for _ in range(len(group.rows))],
        **_names("", pool.keys_of(rows)),
        "row": rows,
        **_names("kept_", pool.keys_of(kept)),
        "kept_row": kept,
        "similarity": alike.astype(np.float32),
    }
    _write_table(path, columns)


def write_leaks(pool: Pool, path: Path, found: Found) -> None:
    """Every protected row: evaluation_key, evaluation_part, key, part, row, similarity."""
    seen = [(found.leaks.keys[at], found.leaks.parts[at]) for at in found.leak]
    columns = {
        **_names("evaluation_", seen),
        **_names("", pool.keys_of(found.rows)),
        "row": found.rows,
        "similarity": found.alike,
    }
    _write_table(path, columns)


def lines(pool: Pool, card: Mapping[str, Any], found: Found | None) -> list[str]:
    """Counts by reason, a complaint of what can hardly be right, and the first few leaks."""
    total, dropped = max(len(pool), 1), card["dropped"]
    counts = ", ".join(f"{count:,} {name}" for name, count in dropped.items())
    said = [f"{len(pool):,} images ({card['mode']}): {counts}"]
    if dropped["near_duplicate"] > IMPLAUSIBLE * total:
        group = card["largest_groups"][0]
        said.append(
            f"warning: {dropped['near_duplicate'] / total:.0%} of the images are near duplicates, "
            f"{group['images']:,} of {group['key']} ({group['part']}) alone: look at "
            "pairs.parquet; --dedup exact keeps them"
        )
    if dropped["protected"] > IMPLAUSIBLE * total:
        said.append(
            f"warning: {dropped['protected'] / total:.0%} of the images are in the set to "
            "protect: is that set a part of the corpus?"
        )
    return said + (_leaks(pool, found) if found is not None else [])


def _leaks(pool: Pool, found: Found) -> list[str]:
    leaks = found.leaks
    best = np.lexsort((leaks.rows, -leaks.alike))[:SHOWN]
    said = [
        f"{leaks.num_images:,} images to protect: {leaks.num_seen:,} of them are seen in "
        f"{len(np.unique(found.rows)):,} images of the corpus, listed in protected.parquet"
    ]
    for at, (key, part) in zip(best, pool.keys_of(leaks.rows[best]), strict=True):
        seen = f"{leaks.keys[at]} ({leaks.parts[at]})"
        said.append(f"  {seen} in {key} ({part}), likeness {leaks.alike[at]:.3f}")
    return said


def _names(prefix: str, names: Sequence[tuple[str, str]]) -> dict[str, Any]:
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
