"""Selections against each other: students' accuracy, the hidden truth, and the certificate.

Command: python -m benchmarks.selections --runs runs --teacher r18 --corpus 'POOL/*.tar.gz' \
    --original 'TRAIN/*.tar.gz' --eval TEST --truth truth.parquet \
    --methods random odsd 'odsd weights=none' entropy_top --n 10000 50000 --seeds 0 1
Figures: per selection (a method with its settings, and N) the mean accuracy of its students and
the share of the random-to-original gap that it closes, at equal images and equal steps; then how
well each figure of the certificate ranks the selections as the students do (Spearman).

Runs `winnow select` and `winnow distill` as a user would; what was done is not done again.
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
    """key -> class of a Parquet with `key` and `label` (index or name); others are in none."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["key", "label"]).to_pydict()
    number = {name: place for place, name in enumerate(classes)}
    pairs = zip(table["key"], table["label"], strict=True)
    known = ((key, number.get(label, label)) for key, label in pairs)
    return {
        key: label for key, label in known if isinstance(label, int) and 0 <= label < len(classes)
    }


def true_figures(
    keys: Sequence[str], labels: npt.NDArray[Any], truth: Mapping[str, int], num_classes: int
) -> dict[str, float]:
    """What only the hidden truth tells of selected keys [n] and the teacher's labels [n].

    purity: share that shows one of the classes; right: share that the teacher puts in its true
    class; true_class_entropy: of the true classes, as a share of log C.
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
    """Every selection with its figures and its students' accuracies, `args.jobs` at a time."""
    methods = [*args.methods, *([ORIGINAL] if args.original else [])]
    chosen = [(method, n, select(args, method, n)) for n in args.n for method in methods]
    with ThreadPoolExecutor(args.jobs) as pool:
        each = pool.map if args.jobs > 1 else map  # one at a time needs no thread
        return list(each(lambda one: measure_one(args, *one), chosen))


def measure_one(args: argparse.Namespace, method: str, n: int, directory: Path) -> dict[str, Any]:
    """One selection with its figures and, per student and steps, the accuracies by seed."""
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
    """Ranks from 1, equal values sharing their mean rank, float64 [n]."""
    _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: npt.NDArray[Any] = (last - (counts - 1) / 2)[place]
    return mean


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Rank correlation of two lists, -1 to 1; None where either has a single value."""
    a, b = ranks(one), ranks(other)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else None


def correlate(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per figure, student and steps: Spearman against the mean accuracy over the selections.

    all: every selection but the original's; within: the mean of the correlations inside each N
    that has three selections or more. Strongest first.
    """
    found = []
    chosen = [row for row in rows if row["method"] != ORIGINAL]
    cells = [(cell["student"], cell["steps"]) for cell in rows[0]["cells"]]
    for place, (student, steps) in enumerate(cells):
        for name in figure_names(chosen):
            have = [row for row in chosen if name in figures(row)]

            def rho(part: Sequence[dict[str, Any]], name: str = name, place: int = place) -> Any:
                accuracy = [row["cells"][place]["mean"] for row in part]
                return spearman([figures(row)[name] for row in part], accuracy)

            groups = [[row for row in have if row["n"] == n] for n in {row["n"] for row in have}]
            inside = [rho(group) for group in groups if len(group) >= 3]
            known = [value for value in inside if value is not None]
            within = float(np.mean(known)) if known else None
            found.append(
                {"student": student, "steps": steps, "figure": name, "all": rho(have)}
                | {"within": within, "selections": len(have)}
            )
    return sorted(found, key=lambda one: -abs(one["within"] or one["all"] or 0))


def figures(row: Mapping[str, Any]) -> dict[str, float]:
    """The certificate's figures of a selection, and those of the truth where it is known."""
    return {**{key: row[key] for key in TRUE_FIGURES if key in row}, **row["certificate"]}


def figure_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every figure that some selection has, in the order of the certificate."""
    return list(dict.fromkeys(name for row in rows for name in figures(row)))


def tables(rows: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Three Markdown tables: accuracies, every figure, rank correlations."""
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
    for one in found:
        both = [f"{one[key]:+.2f}" if one[key] is not None else "" for key in ("all", "within")]
        yield from line(
            one["figure"], one["student"], f"{one['steps']:,}", *both, str(one["selections"])
        )


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    options = parser(__doc__)
    options.add_argument("--truth", type=Path, help="a Parquet of key and label, for purity")
    options.add_argument("--methods", nargs="+", required=True, help="'odsd weights=none' random")
    options.add_argument("--n", nargs="+", type=int, required=True)
    options.add_argument("--student", nargs="+", default=["wrn_16_2"])
    options.add_argument("--steps", nargs="+", type=int, default=[1000])
    options.add_argument("--jobs", type=int, default=1, help="selections trained side by side")
    options.add_argument("--out", type=Path, default=Path("benchmarks/selections.json"))
    return options.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Prints the tables; writes them as Markdown beside one JSON."""
    args = arguments(words)
    rows = measure(args)
    close_gaps(
        rows,
        low=lambda row: row["method"] == "random",
        high=lambda row: row["method"] == ORIGINAL,
    )
    found = correlate(rows)
    text = "\n".join(tables(rows, found)) + "\n"
    print(text)
    result = {"command": artifact.plain(vars(args)), "selections": rows, "spearman": found}
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
