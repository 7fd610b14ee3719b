"""What the contests share: running `winnow` as a user would, gaps closed, Markdown tables.

A student that was trained and evaluated is not trained again, so a run that was cut off goes on,
and one with more rows only adds theirs.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indexes import artifact, devices

ORIGINAL = "original"
"""N random images of the lost original, as if it were a method: the upper bound."""


def winnow(args: argparse.Namespace, *words: object) -> str:
    """What a `winnow` command prints; it ends the benchmark where it fails."""
    command = [sys.executable, "-m", "winnow", *map(str, words)]
    threads = {"OMP_NUM_THREADS": str(max(1, devices.cores() // args.jobs))}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=False, env={**threads, **os.environ}
    )
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}\n{done.stdout}")
    return done.stdout


def select(args: argparse.Namespace, method: str, n: int) -> Path:
    """The shards of `name key=value ...` at N images; found again where they are."""
    name, *settings = ["random"] if method == ORIGINAL else method.split()
    words = ["--corpus", args.original if method == ORIGINAL else args.corpus]
    words += ["--runs", args.runs, "--teacher", args.teacher, "--method", name, "-n", n]
    words += ["--set", " ".join(settings)] if settings else []
    answer = winnow(args, "select", *words, *shlex.split(args.select_args), "--json")
    return Path(json.loads(answer)["shards"])


def train(
    args: argparse.Namespace, shards: Path, student: str, steps: int, seed: int, *more: str
) -> Path:
    """The evaluation of one student, trained from the shards unless it was.

    `more` are further words for `winnow distill`.
    """
    words = ["--student", student, "--steps", steps, "--seed", seed, "--eval", args.eval]
    words += [*more, *shlex.split(args.distill_args)]
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
    """Adds `mean` to every cell, and `gap_closed` where N, student and steps have both ends.

    `low` and `high` tell the rows that are 0 and 1.
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
    """`75.7 (75.1 to 76.2), 43 %`."""
    low, high = min(cell["accuracies"]), max(cell["accuracies"])
    text = f"{100 * cell['mean']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    return text + (f", {100 * cell['gap_closed']:.0f} %" if "gap_closed" in cell else "")


def line(*words: str, head: bool = False) -> Iterator[str]:
    """A row of a Markdown table, with the rule below it where it is the head."""
    yield "| " + " | ".join(words) + " |"
    if head:
        yield "| " + " | ".join("---" for _ in words) + " |"


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options that every contest has."""
    options = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--runs", required=True)
    options.add_argument("--teacher", required=True)
    options.add_argument("--corpus", required=True)
    options.add_argument("--eval", required=True)
    options.add_argument("--original", help="the lost original, for the upper bound")
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    options.add_argument("--select-args", default="", help="further words for `winnow select`")
    options.add_argument("--distill-args", default="", help="as in '--views 2'")
    return options
