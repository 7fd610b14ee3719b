"""The index against plain FAISS and autofaiss: one corpus, in class order and shuffled.

Command: python -m benchmarks.index [--rows 1000000] [--peer VENV/bin/python] [--scratch DIR]
Corpus: 1,000 overlapping clusters in a subspace of 96 dimensions and noise, half floats, class
after class. Every job is a process of its own. Columns: CPU-seconds of the whole build (tuning
included), peak memory above that of a tiny build, recall@10 of 1,000 held-out rows at the settings
that the builder chose, queries per CPU-second there, CPU-seconds of all-pairs neighbors. `faiss`
is the floor: train on a random sample and add, with the same lists and codes. `small budget` is
the build in a budget of an eighth of the corpus, and of a corpus of a tenth: memory must not grow.
autofaiss runs in an environment of its own (`pip install autofaiss "faiss-cpu<1.12"`) given by
--peer, with the same memory; `ours at its recall` is the first index again, looking into as many
more lists as that takes.
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
    sys.exit(f"no autofaiss there: {error}")
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
    """CPU-seconds of a job, and its peak memory above what was held before it."""
    base, cpu = peak_bytes(), cpu_seconds()
    job()
    return {"cpu_seconds": cpu_seconds() - cpu, "peak_bytes": peak_bytes() - base}


def make(path: Path, rows: int, dimension: int) -> None:
    """`ordered.npy` in class order and `shuffled.npy`, unit rows float16, with the permutation."""
    generator = np.random.default_rng(0)
    basis = generator.normal(size=(96, dimension)).astype(np.float32) / np.sqrt(96)
    ordered = np.lib.format.open_memmap(path / "ordered.npy", "w+", np.float16, (rows, dimension))
    for own in np.array_split(np.arange(rows), min(1000, rows)):
        local = 1.5 * generator.normal(size=(32, 96)) / np.sqrt(32)
        place = generator.normal(size=(len(own), 32)) @ local + generator.normal(size=96)
        vectors = place.astype(np.float32) @ basis
        vectors += 0.2 * generator.normal(size=vectors.shape).astype(np.float32)
        vectors = np.maximum(vectors + 0.3, 0)  # as features after a ReLU are
        ordered[own] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
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
    """(row numbers [q], their 10 nearest others [q, 10]) by an exact scan."""
    import faiss
    from faiss.contrib.exhaustive_search import knn_ground_truth

    vectors = np.load(path, mmap_mode="r")
    own = np.sort(generator.choice(len(vectors), min(QUERIES, len(vectors)), replace=False))
    queries = vectors[own].astype(np.float32)
    _, found = knn_ground_truth(queries, blocks(path), 11, faiss.METRIC_INNER_PRODUCT)
    return own, np.stack([row[row != one][:10] for row, one in zip(found, own, strict=True)])


def blocks(path: Path) -> Iterator[Array]:
    """Unit rows float32 of a file, part by part."""
    rows = len(np.load(path, mmap_mode="r"))
    for start in range(0, rows, PART_ROWS):
        yield np.load(path, mmap_mode="r")[start : start + PART_ROWS].astype(np.float32)


def ours(source: Path, out: Path, rows: int, budget: int) -> dict[str, Any]:
    """`indexes.vectors.index.build` over parts of 32,768 rows."""
    import torch  # noqa: F401, as every `winnow select` has: larger than what is measured

    from indexes.vectors.build import VectorPart, build_index
    from indexes.vectors.index import Vectors
    from indexes.vectors.plan import IndexConfig

    few = VectorPart("few", 64, lambda: np.eye(64))
    build_index(out.with_name("few"), [few])  # the imports, and what libraries keep for good

    def read(start: int, stop: int) -> Array:
        found: Array = np.load(source, mmap_mode="r")[start:stop]
        return found

    starts = range(0, rows, PART_ROWS)
    parts = [
        VectorPart(f"{one}", min(PART_ROWS, rows - one),
                     lambda one=one: read(one, min(one + PART_ROWS, rows)))
        for one in starts
    ]  # fmt: skip
    result = measured(lambda: build_index(out, parts, IndexConfig(budget_bytes=budget)))
    card = Vectors(out).card
    return {**result, "chosen": f"{card['factory']} nprobe={card['nprobe']}"}


def plain(source: Path, out: Path, budget: int) -> dict[str, Any]:
    """FAISS alone, with our lists and codes: train on a random sample, add."""
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
    """recall@10 and queries per CPU-second at the settings that were chosen."""
    import faiss

    index = faiss.read_index(str(index_file), faiss.IO_FLAG_MMAP if "IVF" in chosen else 0)
    faiss.ParameterSpace().set_index_parameters(index, chosen.split(" ", 1)[1])
    exact = np.load(exact_file)
    queries = np.load(source, mmap_mode="r")[exact["sample"]].astype(np.float32)
    index.search(queries[:8], 11)
    cpu = cpu_seconds()
    _, found = index.search(queries, 11)
    seconds = cpu_seconds() - cpu
    hits = [
        len(set(row[row != one][:10]) & set(near)) / 10
        for row, one, near in zip(found, exact["own"], exact["near"], strict=True)
    ]
    return {"recall_at_10": float(np.mean(hits)), "queries_per_cpu_second": len(queries) / seconds}


def neighbors(out: Path, exact_file: Path) -> dict[str, float]:
    """CPU-seconds of the all-pairs neighbors and the recall@10 among them."""
    from indexes.vectors.index import Vectors

    opened, exact = Vectors(out), np.load(exact_file)
    rows = opened.card["num_vectors"]
    sizes = [range(min(PART_ROWS, rows - start)) for start in range(0, rows, PART_ROWS)]
    hits: list[float] = []

    def job() -> None:
        start = 0
        for _, found in opened.neighbors(sizes, 10):
            low, high = np.searchsorted(exact["own"], [start, start + len(found)])
            mine = found[exact["own"][low:high] - start]
            near = exact["near"][low:high]
            hits.extend((near[:, :, None] == mine[:, None, :]).any(2).mean(1).tolist())
            start += len(found)

    result = measured(job)
    return {
        "neighbors_cpu_seconds": result["cpu_seconds"],
        "neighbors_peak_bytes": result["peak_bytes"],
        "neighbors_recall_at_10": float(np.mean(hits)),
    }


def run(job: str, *arguments: object) -> dict[str, Any]:
    """One job of this file in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.index", "--job", job, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def job(name: str, arguments: list[str]) -> dict[str, Any]:
    """The job that `run` asked for."""
    paths = [Path(one) for one in arguments]
    if name == "make":
        make(paths[0], int(arguments[1]), int(arguments[2]))
        return {}
    if name == "truth":
        own, near = truth(paths[0], np.random.default_rng(1))
        np.savez(paths[1], own=own, near=near)
        return {}
    if name == "ours":
        return ours(paths[0], paths[1], int(arguments[2]), int(arguments[3]))
    if name == "faiss":
        return plain(paths[0], paths[1], int(arguments[2]))
    if name == "search":
        return search(paths[0], paths[1], arguments[2], paths[3])
    return neighbors(paths[0], paths[1])


def main() -> None:
    """Prints one table and writes benchmarks/index.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--budget", type=int, default=4 << 30, help="bytes")
    parser.add_argument("--peer", help="a Python that has autofaiss")
    parser.add_argument("--scratch", help="a folder for some 10 bytes a number")
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
    """Every row of the table."""
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
        print("autofaiss: skipped, no --peer")
    return table


def peer(scratch: Path, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """autofaiss on the corpus in class order."""
    source, out = scratch / "ordered" / "v.npy", scratch / "auto.faiss"
    memory = [f"{arguments.budget >> 20}MB", f"{arguments.budget // 2 * 3 >> 20}MB"]
    command = [arguments.peer, "-c", PEER, str(source.parent), str(out), *memory]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print("autofaiss: skipped, it does not run there")
        return {}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    exact = scratch / "ordered.npz"
    row |= run("search", source, out, row["chosen"], exact)
    ours, probes = scratch / "ours" / "ordered" / "index.faiss", 1
    found: dict[str, Any] = {"recall_at_10": 0.0}
    while found["recall_at_10"] < row["recall_at_10"] and probes < 4096:
        probes *= 2
        found = run("search", source, ours, f"IVF nprobe={probes}", exact)
    found = {"chosen": f"nprobe={probes}", **found}
    return {"autofaiss ordered": row, "ours at its recall": found}


if __name__ == "__main__":
    main()
