"""The whole job: from a pool to curated shards, and from the shards to an evaluated student.

Command: python -m benchmarks.wholejob --corpus 'POOL/*.tar.gz' --teacher DIR --eval TEST \
    [-n 50000] [--student resnet18] [--select-args '...'] [--distill-args '--epochs 30']
The benchmark runs `winnow select` and `winnow distill` as a user does, each in a new process and
without earlier results. It measures the wall-clock seconds of both commands and of each stage, from
the lines that they log. Start-up, decoding, saving and evaluation are included. The target of five
minutes holds for one H200; on a CPU it is blank.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import timing
from benchmarks.timing import Line, Target
from indexes import artifact, devices
from indexes.sources.spec import open_parts

MINUTES = 5
EVALUATION = (
    "evaluate: ",
    "weakest: ",
    "dropped: ",
    "cost: ",
    "Images/s: ",
)  # lines of the evaluation


def timed_lines(*words: object) -> list[tuple[float, str]]:
    """Run `winnow` and return every line that it prints with the seconds since the start.

    Raises SystemExit if the command fails.
    """
    command = [sys.executable, "-u", "-m", "winnow", *map(str, words)]
    begin, lines = time.perf_counter(), []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for text in process.stdout:
            lines.append((time.perf_counter() - begin, text.rstrip("\n")))
            print(text, end="", flush=True)
    if process.returncode:
        raise SystemExit(f"{shlex.join(command)}: exit status {process.returncode}")
    return [*lines, (time.perf_counter() - begin, "the end:")]


def stages(lines: Iterable[tuple[float, str]], student: str) -> dict[str, float]:
    """Return the seconds of each stage.

    A line names the stage that took the time since the line before.
    """
    seconds_of: dict[str, float] = {}
    before = 0.0
    for seconds, text in lines:
        name = stage_of(text, student)
        if name is not None:
            seconds_of[name] = seconds_of.get(name, 0.0) + seconds - before
            before = seconds
    return seconds_of


def stage_of(text: str, student: str) -> str | None:
    """Return `embed` for "embed: 10 images in 0:01", and None for a line of no stage."""
    if text.startswith("step "):
        return "training"
    if text.startswith(f"{student}: "):
        return "saving"
    if text.startswith(EVALUATION):
        return "evaluation"
    word = re.match(r"([a-z][a-z ]*):", text)
    return word[1] if word else None


def main(words: Sequence[str] | None = None) -> None:
    """Print the table and write benchmarks/wholejob.json."""
    args = arguments(words)
    device = devices.choose()
    open_parts(args.eval)  # Reports a wrong path before the selection begins.
    with contextlib.ExitStack() as stack:
        runs = args.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if any(runs.glob("*")):
            raise SystemExit(
                f"{runs} is not empty: existing results would be reused and not timed; "
                "name an empty folder"
            )
        common = ["--runs", runs, "--teacher", args.teacher]
        select = timed_lines(
            "select", *common, "--corpus", args.corpus, "-n", args.n,
            *shlex.split(args.select_args),
        )  # fmt: skip
        out = runs / "student"
        distill = timed_lines(
            "distill", *common, "--student", args.student, "--eval", args.eval, "--out", out,
            *shlex.split(args.distill_args),
        )  # fmt: skip
        accuracy = artifact.read_json(out / "evaluation.json")["top1"]
    table: dict[str, Any] = {
        "select": {"seconds": select[-1][0], **stages(select, args.student)},
        "distill": {"seconds": distill[-1][0], **stages(distill, args.student)},
    }
    timing.show(table)
    print(f"{args.student}: top-1 {100 * accuracy:.2f} %")
    on_gpu = device.startswith("cuda")
    line = Line(
        row="whole job",
        unit="seconds" if on_gpu else "seconds on a CPU",
        ours=select[-1][0] + distill[-1][0],
        target=Target(of="", sense="<=", bound=60.0 * MINUTES) if on_gpu else None,
    )
    result = {"stages": table, "top1": accuracy, "machine": timing.machine(device)}
    settings = {"n": args.n, "student": args.student}
    settings |= {"select_args": args.select_args, "distill_args": args.distill_args}
    timing.write("wholejob", [line], **result, command=settings)
    if not on_gpu:
        print("this is the figure of a CPU; the target holds for one H200 and is left blank")


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--corpus", required=True, help="the unlabeled corpus")
    options.add_argument("--teacher", required=True, help="a teacher directory")
    options.add_argument("--eval", required=True, help="the labeled evaluation set")
    options.add_argument("-n", type=int, default=50_000, help="images to select")
    options.add_argument("--student", default="resnet18", help="the student network")
    options.add_argument("--select-args", default="", help="additional options of `winnow select`")
    options.add_argument("--distill-args", default="", help="as in '--method kd --epochs 30'")
    options.add_argument("--scratch", type=Path, help="an empty folder for all results")
    return options.parse_args(words)


if __name__ == "__main__":
    main()
