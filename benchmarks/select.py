"""Selection, compared with its floor: one bare scan of the same columns.

Command: python -m benchmarks.select [--rows 10000000] [--classes 1000] [--scratch DIR]
Every job runs in a new process, which reports its seconds and its peak memory. The rounds
alternate, and the median counts. The floor maps every column and sums it chunk by chunk. For
reference, arrow reads the same columns from Parquet, and a sort in memory (numpy, and pandas where
it is installed) makes the same selection; its rows must be identical.
The columns take 21 bytes of disk per row, and twice as much with Parquet (up to --parquet-rows).
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
FRAC = 0.05  # share of the rows to select


def draw(directory: Path, rows: int, classes: int, parquet: bool) -> None:
    """Write random columns of a pool; the classes differ in size, and 5 % are duplicates."""
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
    """Run the floor: sum every column."""
    for name in DTYPES:
        mapped = column(directory, name)
        for piece in chunks(rows, SIZES.chunk_rows):
            mapped[piece].sum()


def parquet(directory: Path, rows: int, classes: int) -> None:
    """Sum the same columns from Parquet, one batch of all columns at a time."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(directory / "columns.parquet").iter_batches(1 << 20):
        for name in DTYPES:
            pc.sum(batch[name])


def ours(directory: Path, rows: int, classes: int, balance: Any = "quota") -> Array:
    """Select as winnow does and return the rows."""
    embeddings = Embeddings(directory, {"num_samples": rows, "parts": []})
    names = tuple(str(label) for label in range(classes))
    empty_head = np.zeros((classes, 1), np.float32), np.zeros(classes, np.float32)
    out = directory / "rows.npy"
    select_top_n(
        Pool(embeddings, empty_head, names, directory), int(FRAC * rows), balance, 0.0, out
    )
    return column(directory, "rows")


def ours_with_floor(directory: Path, rows: int, classes: int) -> Array:
    """Select with winnow's default: quotas of the rows above the floor of log-odds."""
    return ours(directory, rows, classes, "quota_with_floor")


def lexsort(directory: Path, rows: int, classes: int) -> Array:
    """Run the peer: columns in memory, one sort of all rows by class, score and key hash."""
    free = np.flatnonzero(column(directory, "reason") == 0)
    label, score, tie = (column(directory, name)[free] for name in ("label", "score", "key_hash"))
    counts = np.bincount(label, minlength=classes)
    order = np.lexsort((tie, -score, label))
    rank = np.arange(len(free)) - np.repeat(np.cumsum(counts) - counts, counts)
    quotas = water_fill(counts, int(FRAC * rows))
    selected: Array = np.sort(free[order[rank < np.repeat(quotas, counts)]])
    return selected


def pandas(directory: Path, rows: int, classes: int) -> Array:
    """Run the peer: a data frame, ranked within its groups. Equal scores (rare) go by row."""
    import pandas as pd

    frame = pd.DataFrame({name: np.array(column(directory, name)) for name in DTYPES})
    frame = frame[frame["reason"] == 0]
    counts = frame["label"].value_counts().reindex(range(classes), fill_value=0).to_numpy()
    quotas = water_fill(counts, int(FRAC * rows))
    rank = frame.groupby("label")["score"].rank(method="first", ascending=False)
    selected = frame.index[rank.to_numpy() <= quotas[frame["label"].to_numpy()]]
    rows_selected: Array = selected.to_numpy()
    return rows_selected


def digest(rows: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows, np.int64)).hexdigest()[:16]


JOBS: dict[str, Callable[[Path, int, int], Array | None]] = {
    "scan": scan,
    "parquet": parquet,
    "ours": ours,
    "ours_with_floor": ours_with_floor,
    "lexsort": lexsort,
    "pandas": pandas,
}


def child(job: str, directory: Path, rows: int, classes: int) -> None:
    """Run one job in this process and print a line of JSON; a tiny job first does the imports."""
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
    """Print the table and write benchmarks/select-ROWS.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the pool")
    parser.add_argument("--classes", type=int, default=1000, help="classes of the pool")
    parser.add_argument("--rounds", type=int, default=5, help="rounds over all jobs")
    parser.add_argument(
        "--parquet-rows", type=int, default=20_000_000, help="most rows for Parquet"
    )
    parser.add_argument("--sort-rows", type=int, default=20_000_000, help="most rows for the sorts")
    parser.add_argument("--scratch", type=Path, help="folder for the columns")
    parser.add_argument("--job", choices=sorted(JOBS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        child(args.job, args.scratch, args.rows, args.classes)
        return
    jobs = ["scan", "ours", "ours_with_floor"]
    jobs += ["parquet"] * (args.rows <= args.parquet_rows)
    jobs += ["lexsort"] * (args.rows <= args.sort_rows)
    if importlib.util.find_spec("pandas") and args.rows <= args.sort_rows:
        jobs.append("pandas")
    results: dict[str, list[dict[str, Any]]] = {job: [] for job in jobs}
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        draw(Path(scratch), args.rows, args.classes, "parquet" in jobs)
        size = ["--rows", str(args.rows), "--classes", str(args.classes), "--scratch", scratch]
        for _ in range(args.rounds):
            for job in jobs:
                command = [sys.executable, "-m", "benchmarks.select", "--job", job, *size]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                results[job].append(json.loads(done.stdout))
    table = {
        job: {
            key: statistics.median(run[key] for run in runs)
            for key in ("seconds", "cpu_seconds", "peak_mib")
        }
        for job, runs in results.items()
    }
    for job, row in table.items():
        row["seconds_by_scan"] = row["seconds"] / table["scan"]["seconds"]
        row["cpu_by_scan"] = row["cpu_seconds"] / table["scan"]["cpu_seconds"]
        print(f"{job:<16}", " ".join(f"{key}={value:,.3f}" for key, value in row.items()))
    same = {run["rows"] for job in ("ours", "lexsort", "pandas") for run in results.get(job, [])}
    print(f"all ways select the same rows: {len(same) == 1}")
    result = {"rows": args.rows, "classes": args.classes, "rounds": args.rounds, "jobs": table}
    result["same_rows"] = len(same) == 1
    path = Path(f"benchmarks/select-{args.rows}.json")
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
