"""The vector index, compared with plain FAISS and autofaiss on one corpus, ordered and shuffled.

Command: python -m benchmarks.index [--rows 1000000] [--peer VENV/bin/python] [--scratch DIR]
The corpus is 1,000 overlapping clusters in a subspace of 96 dimensions, plus noise, in half floats,
ordered by class. Every job runs in a new process. The columns are: the CPU-seconds of the whole
build (tuning included), the peak memory above that of a tiny build, recall@10 of 1,000 rows at the
settings that the builder chose, the queries per CPU-second at these settings, and the CPU-seconds
of all-pairs neighbors. `faiss` is the floor: it trains on a random sample and adds the rows, with
the same lists and codes. `small budget` builds with a budget of an eighth of the corpus, once for a
tenth of the corpus and once for all of it; the memory must not grow. autofaiss runs with the same
memory in an environment named by --peer (`pip install autofaiss "faiss-cpu<1.12"`). `ours at its
recall` is our first index again, with as many probed lists as the recall of autofaiss needs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.timing import cpu_seconds, peak_bytes

Array = npt.NDArray[Any]
PART_ROWS = 32_768
QUERIES = 1000

PEER = """
import json, os, resource, sys
try:
    import autofaiss, faiss
except ImportError as error:
    sys.exit(f"autofaiss is not installed: {error}")
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin = os.times()
autofaiss.build_index(sys.argv[1], index_path=sys.argv[2], index_infos_path=sys.argv[2] + ".json",
    file_format="npy", metric_type="ip", max_index_memory_usage=sys.argv[3],
    current_memory_available=sys.argv[4], nb_cores=1, verbose=30)
end = os.times()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open(sys.argv[2] + ".json") as file:
    chosen = json.load(file)
print(json.dumps({"cpu_seconds": end.user + end.system - begin.user - begin.system,
    "peak_bytes": (peak - base) * 1024,
    "chosen": chosen["index_key"] + " " + chosen["index_param"]}))
"""


def measured(job: Callable[[], None]) -> dict[str, float]:
    """Measure the CPU-seconds of a job, and its peak memory above the peak before the job."""
    base, cpu = peak_bytes(), cpu_seconds()
    job()
    return {"cpu_seconds": cpu_seconds() - cpu, "peak_bytes": peak_bytes() - base}


def make(path: Path, rows: int, dimension: int) -> None:
    """Write the corpus, unit rows float16, ordered by class and shuffled, and the permutation."""
    generator = np.random.default_rng(0)
    basis = generator.normal(size=(96, dimension)).astype(np.float32) / np.sqrt(96)
    ordered = np.lib.format.open_memmap(path / "ordered.npy", "w+", np.float16, (rows, dimension))
    for cluster in np.array_split(np.arange(rows), min(1000, rows)):
        directions = 1.5 * generator.normal(size=(32, 96)) / np.sqrt(32)
        points = generator.normal(size=(len(cluster), 32)) @ directions + generator.normal(size=96)
        vectors = points.astype(np.float32) @ basis
        vectors += 0.2 * generator.normal(size=vectors.shape).astype(np.float32)
        vectors = np.maximum(vectors + 0.3, 0)  # like features after a ReLU
        ordered[cluster] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ordered.flush()
    order = generator.permutation(rows)
    np.save(path / "order.npy", order)
    folder = path / "shuffled"
    folder.mkdir()
    (path / "ordered").mkdir()
    shuffled = np.lib.format.open_memmap(folder / "v.npy", "w+", np.float16, (rows, dimension))
    for start in range(0, rows, PART_ROWS):
        shuffled[start : start + PART_ROWS] = ordered[order[start : start + PART_ROWS]]
    shuffled.flush()
    (path / "ordered.npy").rename(path / "ordered" / "v.npy")


def truth(path: Path, generator: np.random.Generator) -> tuple[Array, Array]:
    """Return row numbers [q] and their 10 nearest other rows [q, 10], by an exact scan."""
    import faiss
    from faiss.contrib.exhaustive_search import knn_ground_truth

    vectors = np.load(path, mmap_mode="r")
    sample = np.sort(generator.choice(len(vectors), min(QUERIES, len(vectors)), replace=False))
    queries = vectors[sample].astype(np.float32)
    _, nearest = knn_ground_truth(queries, blocks(path), 11, faiss.METRIC_INNER_PRODUCT)
    return sample, np.stack([n[n != row][:10] for n, row in zip(nearest, sample, strict=True)])


def blocks(path: Path) -> Iterator[Array]:
    """Yield the rows of a file as float32, part by part."""
    rows = len(np.load(path, mmap_mode="r"))
    for start in range(0, rows, PART_ROWS):
        yield np.load(path, mmap_mode="r")[start : start + PART_ROWS].astype(np.float32)


def ours(source: Path, out: Path, rows: int, budget: int) -> dict[str, Any]:
    """Build with `indexes.vectors.build.build_index` over parts of 32,768 rows."""
    import torch  # noqa: F401, in memory as in every `winnow select`; larger than the build

    from indexes.vectors.build import VectorPart, build_index
    from indexes.vectors.index import Vectors
    from indexes.vectors.plan import IndexConfig

    tiny = VectorPart("tiny", 64, lambda: np.eye(64))
    build_index(out.with_name("tiny"), [tiny])  # imports, and memory that libraries keep

    def read(start: int, stop: int) -> Array:
        block: Array = np.load(source, mmap_mode="r")[start:stop]
        return block

    starts = range(0, rows, PART_ROWS)
    parts = [
        VectorPart(f"{start}", min(PART_ROWS, rows - start),
                     lambda start=start: read(start, min(start + PART_ROWS, rows)))
        for start in starts
    ]  # fmt: skip
    result = measured(lambda: build_index(out, parts, IndexConfig(budget_bytes=budget)))
    card = Vectors(out).card
    return {**result, "chosen": f"{card['factory']} nprobe={card['nprobe']}"}


def plain(source: Path, out: Path, budget: int) -> dict[str, Any]:
    """Build with FAISS alone, with our lists and codes: train on a random sample, then add."""
    import faiss

    from indexes.vectors.plan import IndexConfig, plan_index

    vectors = np.load(source, mmap_mode="r")
    rows, dimension = vectors.shape
    plan = plan_index(rows, dimension, IndexConfig(budget_bytes=budget))
    index = faiss.index_factory(dimension, plan.factory, faiss.METRIC_INNER_PRODUCT)

    def job() -> None:
        generator = np.random.default_rng(0)
        sample = np.sort(generator.choice(rows, plan.train_rows, replace=False))
        index.train(vectors[sample].astype(np.float32))
        for block in blocks(source):
            index.add(block)
        faiss.write_index(index, str(out))

    result = measured(job)
    return {**result, "chosen": plan.factory}


def search(source: Path, index_file: Path, chosen: str, exact_file: Path) -> dict[str, float]:
    """Measure recall@10 and queries per CPU-second at the chosen settings."""
    import faiss

    index = faiss.read_index(str(index_file), faiss.IO_FLAG_MMAP if "IVF" in chosen else 0)
    faiss.ParameterSpace().set_index_parameters(index, chosen.split(" ", 1)[1])
    exact = np.load(exact_file)
    queries = np.load(source, mmap_mode="r")[exact["sample"]].astype(np.float32)
    index.search(queries[:8], 11)
    cpu = cpu_seconds()
    _, nearest = index.search(queries, 11)
    seconds = cpu_seconds() - cpu
    hits = [
        len(set(row[row != query][:10]) & set(near)) / 10
        for row, query, near in zip(nearest, exact["sample"], exact["near"], strict=True)
    ]
    return {"recall_at_10": float(np.mean(hits)), "queries_per_cpu_second": len(queries) / seconds}


def neighbors(out: Path, exact_file: Path) -> dict[str, float]:
    """Measure the CPU-seconds of the all-pairs neighbors and their recall@10."""
    from indexes.vectors.index import Vectors

    opened, exact = Vectors(out), np.load(exact_file)
    rows = opened.card["num_vectors"]
    sizes = [range(min(PART_ROWS, rows - start)) for start in range(0, rows, PART_ROWS)]
    hits: list[float] = []

    def job() -> None:
        start = 0
        for _, nearest in opened.neighbors(sizes, 10):
            low, high = np.searchsorted(exact["sample"], [start, start + len(nearest)])
            approximate = nearest[exact["sample"][low:high] - start]
            near = exact["near"][low:high]
            hits.extend((near[:, :, None] == approximate[:, None, :]).any(2).mean(1).tolist())
            start += len(nearest)

    result = measured(job)
    return {
        "neighbors_cpu_seconds": result["cpu_seconds"],
        "neighbors_peak_bytes": result["peak_bytes"],
        "neighbors_recall_at_10": float(np.mean(hits)),
    }


def run(job: str, *arguments: object) -> dict[str, Any]:
    """Run one job of this file in a new process."""
    command = [sys.executable, "-m", "benchmarks.index", "--job", job, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def job(name: str, arguments: list[str]) -> dict[str, Any]:
    """Run a job in this process; `run` calls this."""
    paths = [Path(argument) for argument in arguments]
    if name == "make":
        make(paths[0], int(arguments[1]), int(arguments[2]))
        return {}
    if name == "truth":
        sample, near = truth(paths[0], np.random.default_rng(1))
        np.savez(paths[1], sample=sample, near=near)
        return {}
    if name == "ours":
        return ours(paths[0], paths[1], int(arguments[2]), int(arguments[3]))
    if name == "faiss":
        return plain(paths[0], paths[1], int(arguments[2]))
    if name == "search":
        return search(paths[0], paths[1], arguments[2], paths[3])
    return neighbors(paths[0], paths[1])


def main() -> None:
    """Print the table and write benchmarks/index.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the corpus")
    parser.add_argument("--dimension", type=int, default=512, help="length of a row")
    parser.add_argument("--budget", type=int, default=4 << 30, help="memory for a build, in bytes")
    parser.add_argument("--peer", help="a Python that has autofaiss")
    parser.add_argument("--scratch", help="folder; takes about 10 bytes per number of the corpus")
    parser.add_argument("--job", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(job(arguments.job[0], arguments.job[1:])))
        return
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        table = compare(Path(scratch), arguments)
    for name, row in table.items():
        print(f"{name:24s}", " ".join(
            f"{key}={value}" if isinstance(value, str) else f"{key}={value:,.4g}"
            for key, value in row.items()))  # fmt: skip
    result = {"rows": arguments.rows, "dimension": arguments.dimension, **table}
    Path("benchmarks/index.json").write_text(json.dumps(result, indent=1) + "\n")


def compare(scratch: Path, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Measure every row of the table."""
    rows, budget = arguments.rows, arguments.budget
    run("make", scratch, rows, arguments.dimension)
    table: dict[str, dict[str, Any]] = {}
    for order in ("ordered", "shuffled"):
        source, exact, out = scratch / order / "v.npy", scratch / f"{order}.npz", scratch / "ours"
        run("truth", source, exact)
        row = table[f"ours {order}"] = run("ours", source, out / order, rows, budget)
        row |= run("search", source, out / order / "index.faiss", row["chosen"], exact)
        print(order, row, flush=True)
    source, exact = scratch / "ordered" / "v.npy", scratch / "ordered.npz"
    table["ours ordered"] |= run("neighbors", out / "ordered", exact)
    table["faiss ordered"] = row = run("faiss", source, scratch / "plain.faiss", budget)
    chosen = f"IVF {table['ours ordered']['chosen'].split(' ')[1]}"
    row |= run("search", source, scratch / "plain.faiss", chosen, exact)
    small = rows * arguments.dimension * 2 // 8
    for name, count in (("a tenth", rows // 10), ("whole", rows)):
        table[f"small budget, {name}"] = run("ours", source, scratch / name, count, small)
        table[f"small budget, {name}"]["budget_bytes"] = small
    if arguments.peer:
        table |= peer(scratch, arguments)
    else:
        print("autofaiss: skipped, because --peer is not given")
    return table


def peer(scratch: Path, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Measure autofaiss on the corpus ordered by class."""
    source, out = scratch / "ordered" / "v.npy", scratch / "auto.faiss"
    memory = [f"{arguments.budget >> 20}MB", f"{arguments.budget // 2 * 3 >> 20}MB"]
    command = [arguments.peer, "-c", PEER, str(source.parent), str(out), *memory]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print("autofaiss: skipped, because it does not run in that environment")
        return {}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    exact = scratch / "ordered.npz"
    row |= run("search", source, out, row["chosen"], exact)
    ours, probes = scratch / "ours" / "ordered" / "index.faiss", 1
    at_recall: dict[str, Any] = {"recall_at_10": 0.0}
    while at_recall["recall_at_10"] < row["recall_at_10"] and probes < 4096:
        probes *= 2
        at_recall = run("search", source, ours, f"IVF nprobe={probes}", exact)
    at_recall = {"chosen": f"nprobe={probes}", **at_recall}
    return {"autofaiss ordered": row, "ours at its recall": at_recall}


if __name__ == "__main__":
    main()
