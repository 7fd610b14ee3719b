"""Contest of distillation methods: the accuracy, the cost and the deployed net of each.

Command: python -m benchmarks.methods --runs runs --teacher r18 --corpus 'POOL/*.tar.gz' \
    --original 'TRAIN/*.tar.gz' --eval TEST --n 20000 --student resnet8 wrn_16_2 --steps 1000 \
    --seeds 0 1 --distill-args '--views 2' --rows 'random kd' 'original kd' 'winnow kd' \
    'winnow odsd' 'odsd odsd' 'winnow kd3' 'winnow kd3 contrast=0' 'winnow winnow'
A row is a selection and a method with its settings. All rows have equally many images and steps,
and the weights after the last step are evaluated. The gap lies between `random kd` and `original
kd`, so a method can close more than 100 % of it. The cost is the seconds of the training loop in
the log of the fastest seed (comparable only if nothing else ran), and the bytes, parameters and
multiply-adds of the deployed net.

The contest runs `winnow select` and `winnow distill` as a user would. Finished work is reused.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contest import ORIGINAL, accuracy, close_gaps, line, parser, select, train
from distill.evaluation.cost import count_macs
from indexes import artifact
from indexes.models.teacher import WEIGHTS, load_teacher

LOG = "log.jsonl"


def measure(args: argparse.Namespace, row: str) -> dict[str, Any]:
    """Measure the students of a row `SELECTION METHOD key=value ...`: accuracies by seed, cost."""
    selection, method, *settings = row.split()
    shards = select(args, selection, args.n)
    words = ["--method", method, *(["--set", " ".join(settings)] if settings else [])]
    measured: dict[str, Any] = {"selection": selection, "method": method, "n": args.n}
    measured |= {"settings": " ".join(settings), "shards": str(shards), "cells": []}
    for student in args.student:
        results = [train(args, shards, student, args.steps, seed, *words) for seed in args.seeds]
        tops = [artifact.read_json(result)["top1"] for result in results]
        cell = {"student": student, "steps": args.steps, "accuracies": tops}
        cell |= costs([result.parent for result in results])
        measured["cells"].append(cell)
        print(f"{row}: {student}, {args.steps:,} steps: {tops}", flush=True)
    return measured


def costs(students: Sequence[Path]) -> dict[str, float]:
    """Return the training seconds and the size of the students of one cell.

    The fastest seed counts: the first training on a shard set may have precomputed the targets.
    """
    net = load_teacher(students[0])
    return {
        "seconds": min(seconds_of(student) for student in students),
        "bytes": (students[0] / WEIGHTS).stat().st_size,
        "parameters": sum(p.numel() for p in net.net.parameters()),
        "macs": count_macs(net),
    }


def seconds_of(student: Path) -> float:
    """Return the seconds of a training loop: steps times seconds per step in the last log line."""
    lines = [json.loads(text) for text in (student / LOG).read_text().splitlines()]
    last = [line for line in lines if "seconds_per_step" in line][-1]
    return float(last["step"] * last["seconds_per_step"])


def tables(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield two Markdown tables: the accuracies, then the cost."""
    students = [cell["student"] for cell in rows[0]["cells"]]
    head = [f"{student}: top-1 %, gap closed" for student in students]
    yield from line("selection", "losses", *head, head=True)
    for row in sorted(rows, key=lambda row: -row["cells"][0]["mean"]):
        yield from line(row["selection"], losses_of(row), *map(accuracy, row["cells"]))
    yield ""
    words = "seconds", "student MB", "M parameters", "M multiply-adds"
    head = [f"{student}: {word}" for student in students for word in words]
    yield from line("losses", *head, head=True)
    for row in {losses_of(row): row for row in rows}.values():
        numbers = [
            text
            for cell in row["cells"]
            for text in (
                f"{cell['seconds']:.0f}",
                f"{cell['bytes'] / 1e6:.2f}",
                f"{cell['parameters'] / 1e6:.3f}",
                f"{cell['macs'] / 1e6:.1f}",
            )
        ]
        yield from line(losses_of(row), *numbers)


def losses_of(row: Mapping[str, Any]) -> str:
    """Return the method and settings of a row, as in `kd3 contrast=0`."""
    return f"{row['method']} {row['settings']}".strip()


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    options = parser(__doc__)
    options.add_argument("--rows", nargs="+", required=True, help="as in 'winnow kd3 contrast=0'")
    options.add_argument("--n", type=int, default=20_000, help="images to select")
    options.add_argument("--student", nargs="+", default=["resnet8"], help="student networks")
    options.add_argument("--steps", type=int, default=1000, help="training steps")
    options.add_argument(
        "--out", type=Path, default=Path("benchmarks/methods.json"), help="the JSON"
    )
    args = options.parse_args(words)
    args.jobs = 1  # Parallel trainings would distort the seconds.
    return args


def main(words: Sequence[str] | None = None) -> None:
    """Print the tables, and write them as Markdown next to the JSON."""
    args = arguments(words)
    rows = [measure(args, row) for row in args.rows]
    close_gaps(
        rows,
        low=lambda row: losses_of(row) == "kd" and row["selection"] == "random",
        high=lambda row: losses_of(row) == "kd" and row["selection"] == ORIGINAL,
    )
    text = "\n".join(tables(rows)) + "\n"
    print(text)
    result = {"command": artifact.plain(vars(args)), "rows": rows}
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
