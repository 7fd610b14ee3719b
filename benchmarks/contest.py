"""What the contests share: calls of `winnow` as a user makes them, closed gaps, Markdown tables.

A student that was trained and evaluated is not trained again. An interrupted contest therefore
continues, and a contest with additional rows trains only the students of these rows.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indexes import artifact, devices

ORIGINAL = "original"
"""A pseudo-method: N random images of the lost original data. It is the upper bound."""


def winnow(args: argparse.Namespace, *words: object) -> str:
    """Run a `winnow` command and return what it prints. Raises SystemExit if the command fails."""
    command = [sys.executable, "-m", "winnow", *map(str, words)]
    threads = {"OMP_NUM_THREADS": str(max(1, devices.cores() // args.jobs))}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=False, env={**threads, **os.environ}
    )
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}\n{done.stdout}")
    return done.stdout


def select(args: argparse.Namespace, method: str, n: int) -> Path:
    """Select N images with the method `name key=value ...`; existing shards are reused."""
    name, *settings = ["random"] if method == ORIGINAL else method.split()
    words = ["--corpus", args.original if method == ORIGINAL else args.corpus]
    words += ["--runs", args.runs, "--teacher", args.teacher, "--method", name, "-n", n]
    words += ["--set", " ".join(settings)] if settings else []
    output = winnow(args, "select", *words, *shlex.split(args.select_args), "--json")
    return Path(json.loads(output)["shards"])


def train(
    args: argparse.Namespace, shards: Path, student: str, steps: int, seed: int, *options: str
) -> Path:
    """Train one student from the shards, unless that is done, and return its evaluation file.

    `options` are additional options of `winnow distill`.
    """
    words = ["--student", student, "--steps", steps, "--seed", seed, "--eval", args.eval]
    words += [*options, *shlex.split(args.distill_args)]
    key = artifact.digest([artifact.read_card(shards, "shards")["digest"], words])
    out = Path(args.runs) / "students" / f"{shards.name}-{key[:10]}"
    result = out / "evaluation.json"
    if not result.is_file():
        common = ["--shards", shards, "--runs", args.runs, "--teacher", args.teacher]
        winnow(args, "distill", *common, "--out", out, *words)
    return result


def close_gaps(
    rows: Sequence[dict[str, Any]],
    *,
    low: Callable[[Mapping[str, Any]], bool],
    high: Callable[[Mapping[str, Any]], bool],
) -> None:
    """Add `mean` to every cell, and `gap_closed` if its N, student and steps have both ends.

    `low` and `high` are true for the rows whose gap closed is 0 and 1.
    """
    ends: dict[tuple[Any, ...], float] = {}
    for row in rows:
        for cell in row["cells"]:
            cell["mean"] = float(np.mean(cell["accuracies"]))
            for end in (low, high):
                if end(row):
                    ends[end, row["n"], cell["student"], cell["steps"]] = cell["mean"]
    for row in rows:
        for cell in row["cells"]:
            setting = row["n"], cell["student"], cell["steps"]
            lowest, highest = ends.get((low, *setting)), ends.get((high, *setting))
            if lowest is not None and highest is not None and highest != lowest:
                cell["gap_closed"] = (cell["mean"] - lowest) / (highest - lowest)


def accuracy(cell: Mapping[str, Any]) -> str:
    """Format a cell as `75.7 (75.1 to 76.2), 43 %`: mean, lowest, highest, gap closed."""
    low, high = min(cell["accuracies"]), max(cell["accuracies"])
    text = f"{100 * cell['mean']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    return text + (f", {100 * cell['gap_closed']:.0f} %" if "gap_closed" in cell else "")


def line(*words: str, head: bool = False) -> Iterator[str]:
    """Yield a row of a Markdown table; the rule below it follows if the row is the head.

    The methods that are reconstructions are marked: `odsd` becomes `odsd (ODSD-style)`.
    """
    row = "| " + " | ".join(words) + " |"
    yield re.sub(r"\b(odsd|eikd)\b", lambda name: f"{name[0]} ({name[0].upper()}-style)", row)
    if head:
        yield "| " + " | ".join("---" for _ in words) + " |"


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every contest has."""
    options = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--runs", required=True, help="the folder of runs, as for `winnow`")
    options.add_argument("--teacher", required=True, help="name or directory of the teacher")
    options.add_argument("--corpus", required=True, help="the unlabeled corpus")
    options.add_argument("--eval", required=True, help="the labeled evaluation set")
    options.add_argument("--original", help="the lost original data, for the upper bound")
    options.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1], help="seeds of the trainings"
    )
    options.add_argument("--select-args", default="", help="additional options of `winnow select`")
    options.add_argument(
        "--distill-args", default="", help="additional options of `winnow distill`"
    )
    return options
