"""Contest of selections: the accuracy of students, the hidden truth, and the certificate.

Command: python -m benchmarks.selections --runs runs --teacher r18 --corpus 'POOL/*.tar.gz' \
    --original 'TRAIN/*.tar.gz' --eval TEST --truth truth.parquet \
    --methods random odsd 'odsd weights=none' entropy_top --n 10000 50000 --seeds 0 1
A selection is a method with its settings, at one N. For each selection, the contest reports the
mean accuracy of its students, and the share of the gap from `random` to the original data that it
closes, at equally many images and steps. It then reports the rank correlation (Spearman) of each
figure of the certificate with the accuracy of the students.

The contest runs `winnow select` and `winnow distill` as a user would. Finished work is reused.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.contest import ORIGINAL, accuracy, close_gaps, line, parser, select, train
from indexes import artifact
from indexes.shards.reader import open_shards

TRUE_FIGURES = ("purity", "right", "true_class_entropy")


def read_truth(path: Path, classes: Sequence[str]) -> dict[str, int]:
    """Read key -> class from a Parquet file with `key` and `label` (index or name).

    Keys of other labels are left out.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["key", "label"]).to_pydict()
    number = {name: index for index, name in enumerate(classes)}
    pairs = zip(table["key"], table["label"], strict=True)
    known = ((key, number.get(label, label)) for key, label in pairs)
    return {
        key: label for key, label in known if isinstance(label, int) and 0 <= label < len(classes)
    }


def true_figures(
    keys: Sequence[str], labels: npt.NDArray[Any], truth: Mapping[str, int], num_classes: int
) -> dict[str, float]:
    """Return the figures that need the true classes, for keys [n] and the teacher's labels [n].

    purity: the share of images that show one of the classes; right: the share of images whose label
    is the true class; true_class_entropy: the entropy of the true classes, as a share of log C.
    """
    true = np.array([truth.get(key, -1) for key in keys])
    share = np.bincount(true[true >= 0], minlength=num_classes) / max((true >= 0).sum(), 1)
    share = share[share > 0]
    return {
        "purity": float((true >= 0).mean()),
        "right": float((true == labels).mean()),
        "true_class_entropy": float(-(share * np.log(share)).sum() / np.log(num_classes)),
    }


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every selection, `args.jobs` at a time: figures and accuracies of the students."""
    methods = [*args.methods, *([ORIGINAL] if args.original else [])]
    chosen = [(method, n, select(args, method, n)) for n in args.n for method in methods]
    with ThreadPoolExecutor(args.jobs) as pool:
        each = pool.map if args.jobs > 1 else map  # A single job needs no thread.
        return list(each(lambda selection: measure_selection(args, *selection), chosen))


def measure_selection(
    args: argparse.Namespace, method: str, n: int, directory: Path
) -> dict[str, Any]:
    """Return the figures of a selection and, by student and steps, the accuracies of all seeds."""
    shards = open_shards(directory)
    row: dict[str, Any] = {"method": method, "n": n, "kept": len(shards)}
    row |= {"shards": str(directory), "certificate": shards.card["certificate"]}
    if args.truth and method != ORIGINAL:
        truth = read_truth(args.truth, shards.classes)
        row |= true_figures(
            shards.keys.tolist(), shards.columns["label"], truth, len(shards.classes)
        )
    row["cells"] = []
    for student in args.student:
        for steps in args.steps:
            results = [
                artifact.read_json(train(args, directory, student, steps, seed))
                for seed in args.seeds
            ]
            cell = {"student": student, "steps": steps}
            cell["accuracies"] = [result["top1"] for result in results]
            row["cells"].append(cell)
            print(f"{method}, {n:,}: {student}, {steps:,} steps: {cell['accuracies']}", flush=True)
    return row


def ranks(values: Sequence[float]) -> npt.NDArray[Any]:
    """Return the ranks from 1, float64 [n]; equal values share their mean rank."""
    _, group, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: npt.NDArray[Any] = (last - (counts - 1) / 2)[group]
    return mean


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the rank correlation of two lists, -1 to 1; None if one list has a single value."""
    a, b = ranks(first), ranks(second)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else None


def correlate(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Correlate each figure with the mean accuracy over the selections, by student and steps.

    all: Spearman over every selection except the original; within: the mean of the correlations
    within each N that has at least three selections. The strongest correlation comes first.
    """
    correlations = []
    chosen = [row for row in rows if row["method"] != ORIGINAL]
    cells = [(cell["student"], cell["steps"]) for cell in rows[0]["cells"]]
    for cell_index, (student, steps) in enumerate(cells):
        for name in figure_names(chosen):
            with_figure = [row for row in chosen if name in figures(row)]

            def rho(
                part: Sequence[dict[str, Any]], name: str = name, cell_index: int = cell_index
            ) -> Any:
                accuracy = [row["cells"][cell_index]["mean"] for row in part]
                return spearman([figures(row)[name] for row in part], accuracy)

            groups = [
                [row for row in with_figure if row["n"] == n]
                for n in {row["n"] for row in with_figure}
            ]
            rhos = [rho(group) for group in groups if len(group) >= 3]
            known = [value for value in rhos if value is not None]
            within = float(np.mean(known)) if known else None
            correlations.append(
                {"student": student, "steps": steps, "figure": name, "all": rho(with_figure)}
                | {"within": within, "selections": len(with_figure)}
            )
    return sorted(correlations, key=lambda entry: -abs(entry["within"] or entry["all"] or 0))


def figures(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of the certificate, and the true figures where they are known."""
    return {**{key: row[key] for key in TRUE_FIGURES if key in row}, **row["certificate"]}


def figure_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of all figures of all selections, in the order of the certificate."""
    return list(dict.fromkeys(name for row in rows for name in figures(row)))


def tables(rows: Sequence[dict[str, Any]], correlations: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield three Markdown tables: the accuracies, every figure, the rank correlations."""
    cells = [f"{cell['student']}, {cell['steps']:,} steps" for cell in rows[0]["cells"]]
    yield from line("selection", "N", *[f"{cell}: top-1 %, gap" for cell in cells], head=True)
    for row in sorted(rows, key=lambda row: (row["n"], -row["cells"][0]["mean"])):
        yield from line(row["method"], f"{row['n']:,}", *map(accuracy, row["cells"]))
    yield ""
    names = [f"{row['method']} {row['n']:,}" for row in rows]
    yield from line("figure", *names, head=True)
    for name in figure_names(rows):
        values = [figures(row).get(name) for row in rows]
        yield from line(name, *["" if value is None else f"{value:.4g}" for value in values])
    yield ""
    yield from line("figure", "student", "steps", "Spearman", "within N", "selections", head=True)
    for entry in correlations:
        rhos = [f"{entry[key]:+.2f}" if entry[key] is not None else "" for key in ("all", "within")]
        yield from line(
            entry["figure"],
            entry["student"],
            f"{entry['steps']:,}",
            *rhos,
            str(entry["selections"]),
        )


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    options = parser(__doc__)
    options.add_argument(
        "--truth", type=Path, help="a Parquet file of key and label, for the purity"
    )
    options.add_argument(
        "--methods", nargs="+", required=True, help="as in 'odsd weights=none' random"
    )
    options.add_argument("--n", nargs="+", type=int, required=True, help="images to select")
    options.add_argument("--student", nargs="+", default=["wrn_16_2"], help="student networks")
    options.add_argument("--steps", nargs="+", type=int, default=[1000], help="training steps")
    options.add_argument("--jobs", type=int, default=1, help="selections to train in parallel")
    options.add_argument(
        "--out", type=Path, default=Path("benchmarks/selections.json"), help="the JSON"
    )
    return options.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Print the tables, and write them as Markdown next to the JSON."""
    args = arguments(words)
    rows = measure(args)
    close_gaps(
        rows,
        low=lambda row: row["method"] == "random",
        high=lambda row: row["method"] == ORIGINAL,
    )
    correlations = correlate(rows)
    text = "\n".join(tables(rows, correlations)) + "\n"
    print(text)
    result = {"command": artifact.plain(vars(args)), "selections": rows, "spearman": correlations}
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
