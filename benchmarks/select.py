"""Selection against its floor: one bare scan of the same columns.

Command: python -m benchmarks.select [--rows 10000000] [--classes 1000] [--scratch DIR]
Every job runs in a process of its own, which says its seconds and its peak memory; rounds
alternate, the median counts. Floor: every column is mapped and summed, chunk by chunk. For
reference the same columns from Parquet by arrow, and the same selection by a sort in memory
(numpy; pandas where it is installed), whose rows must be the very same.
Disk: 21 bytes a row, twice that with Parquet (up to --parquet-rows).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import timing
from indexes.embeddings import Embeddings
from pipeline.pool import Pool, chunks
from pipeline.selection.candidates import SIZES
from pipeline.selection.top_n import select_top_n, water_fill

Array = npt.NDArray[Any]
DTYPES = {"score": "f4", "label": "i4", "key_hash": "u8", "reason": "u1", "log_odds": "f4"}
FRAC = 0.05  # of the rows are selected


def draw(directory: Path, rows: int, classes: int, parquet: bool) -> None:
    """Columns of a pool whose classes differ in size; a twentieth of the rows are duplicates."""
    generator = np.random.default_rng(0)
    share = 1 / np.sqrt(np.arange(1, classes + 1))
    bounds = np.cumsum(share / share.sum())
    files = {
        name: np.lib.format.open_memmap(
            directory / f"{name}.npy", mode="w+", dtype=dtype, shape=(rows,)
        )
        for name, dtype in DTYPES.items()
    }
    writer = None
    for piece in chunks(rows):
        size = piece.stop - piece.start
        log_odds = 3 * generator.normal(size=size).astype(np.float32)
        block = {
            "label": np.minimum(np.searchsorted(bounds, generator.random(size)), classes - 1),
            "log_odds": log_odds,
            "score": 0.2 * log_odds + generator.normal(size=size),
            "key_hash": generator.integers(0, 1 << 64, size, np.uint64),
            "reason": generator.random(size) < 0.05,
        }
        table = {name: block[name].astype(dtype) for name, dtype in DTYPES.items()}
        for name, column in table.items():
            files[name][piece] = column
        if parquet:
            import pyarrow as pa
            import pyarrow.parquet as pq

            arrow = pa.table(table)
            writer = writer or pq.ParquetWriter(directory / "columns.parquet", arrow.schema)
            writer.write_table(arrow)
    if writer:
        writer.close()


def column(directory: Path, name: str) -> Array:
    mapped: Array = np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    return mapped


def scan(directory: Path, rows: int, classes: int) -> None:
    """The floor."""
    for name in DTYPES:
        mapped = column(directory, name)
        for piece in chunks(rows, SIZES.chunk_rows):
            mapped[piece].sum()


def parquet(directory: Path, rows: int, classes: int) -> None:
    """The floor from Parquet, a batch of all columns at a time."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(directory / "columns.parquet").iter_batches(1 << 20):
        for name in DTYPES:
            pc.sum(batch[name])


def ours(directory: Path, rows: int, classes: int, balance: Any = "quota") -> Array:
    """The product's selection: its rows."""
    whole = Embeddings(directory, {"num_samples": rows, "parts": []})
    names = tuple(str(one) for one in range(classes))
    nothing = np.zeros((classes, 1), np.float32), np.zeros(classes, np.float32)
    out = directory / "rows.npy"
    select_top_n(Pool(whole, nothing, names, directory), int(FRAC * rows), balance, 0.0, out)
    return column(directory, "rows")


def floored(directory: Path, rows: int, classes: int) -> Array:
    """The product's default: quotas of rows above the floor of log-odds."""
    return ours(directory, rows, classes, "quota_with_floor")


def lexsort(directory: Path, rows: int, classes: int) -> Array:
    """The peer: columns in memory, one sort of all rows by class, score and key hash."""
    free = np.flatnonzero(column(directory, "reason") == 0)
    label, score, tie = (column(directory, name)[free] for name in ("label", "score", "key_hash"))
    counts = np.bincount(label, minlength=classes)
    order = np.lexsort((tie, -score, label))
    place = np.arange(len(free)) - np.repeat(np.cumsum(counts) - counts, counts)
    quotas = water_fill(counts, int(FRAC * rows))
    kept: Array = np.sort(free[order[place < np.repeat(quotas, counts)]])
    return kept


def pandas(directory: Path, rows: int, classes: int) -> Array:
    """The peer: a data frame, ranked within its groups. Ties by row, which scores hardly have."""
    import pandas as pd

    frame = pd.DataFrame({name: np.array(column(directory, name)) for name in DTYPES})
    frame = frame[frame["reason"] == 0]
    counts = frame["label"].value_counts().reindex(range(classes), fill_value=0).to_numpy()
    quotas = water_fill(counts, int(FRAC * rows))
    rank = frame.groupby("label")["score"].rank(method="first", ascending=False)
    kept = frame.index[rank.to_numpy() <= quotas[frame["label"].to_numpy()]]
    found: Array = kept.to_numpy()
    return found


def digest(rows: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows, np.int64)).hexdigest()[:16]


JOBS: dict[str, Callable[[Path, int, int], Array | None]] = {
    "scan": scan,
    "parquet": parquet,
    "ours": ours,
    "ours_with_floor": floored,
    "lexsort": lexsort,
    "pandas": pandas,
}


def child(job: str, directory: Path, rows: int, classes: int) -> None:
    """One job in this process, after a tiny one that imports what it needs: a line of JSON."""
    with tempfile.TemporaryDirectory() as tiny:
        draw(Path(tiny), 1000, classes, job == "parquet")
        JOBS[job](Path(tiny), 1000, classes)
    begin = time.perf_counter(), time.process_time()
    result = JOBS[job](directory, rows, classes)
    wall, cpu = time.perf_counter() - begin[0], time.process_time() - begin[1]
    peak = timing.peak_bytes() / 2**20
    print(json.dumps({"seconds": wall, "cpu_seconds": cpu, "peak_mib": peak,
                      "rows": None if result is None else digest(result)}))  # fmt: skip


def main() -> None:
    """Prints one table and writes benchmarks/select-ROWS.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parquet-rows", type=int, default=20_000_000)
    parser.add_argument("--sort-rows", type=int, default=20_000_000)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--job", choices=sorted(JOBS))
    given = parser.parse_args()
    if given.job:
        child(given.job, given.scratch, given.rows, given.classes)
        return
    jobs = ["scan", "ours", "ours_with_floor"]
    jobs += ["parquet"] * (given.rows <= given.parquet_rows)
    jobs += ["lexsort"] * (given.rows <= given.sort_rows)
    if importlib.util.find_spec("pandas") and given.rows <= given.sort_rows:
        jobs.append("pandas")
    found: dict[str, list[dict[str, Any]]] = {job: [] for job in jobs}
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        draw(Path(scratch), given.rows, given.classes, "parquet" in jobs)
        size = ["--rows", str(given.rows), "--classes", str(given.classes), "--scratch", scratch]
        for _ in range(given.rounds):
            for job in jobs:
                command = [sys.executable, "-m", "benchmarks.select", "--job", job, *size]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[job].append(json.loads(done.stdout))
    table = {
        job: {
            key: statistics.median(one[key] for one in runs)
            for key in ("seconds", "cpu_seconds", "peak_mib")
        }
        for job, runs in found.items()
    }
    for job, row in table.items():
        row["seconds_by_scan"] = row["seconds"] / table["scan"]["seconds"]
        row["cpu_by_scan"] = row["cpu_seconds"] / table["scan"]["cpu_seconds"]
        print(f"{job:<16}", " ".join(f"{key}={value:,.3f}" for key, value in row.items()))
    same = {one["rows"] for job in ("ours", "lexsort", "pandas") for one in found.get(job, [])}
    print(f"the same rows by every way: {len(same) == 1}")
    result = {"rows": given.rows, "classes": given.classes, "rounds": given.rounds, "jobs": table}
    result["same_rows"] = len(same) == 1
    path = Path(f"benchmarks/select-{given.rows}.json")
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
