"""Several students in one pass against the sum of its parts, and against a run for each.

Command: python -m benchmarks.students --shards DIR --teacher DIR [--students resnet8 resnet20 ...]
All parts are trainings by `distill.run.train_students`, timed in one run, rounds alternating,
seconds of a step. A student that is nothing (a Linear of the mean color) shows what images and
teacher cost: with cached targets that is `views`, with online ones `views + teacher`; a student's
own cost is what its training takes more than that. Floor: `views + teacher` and every student's
own cost. Peer: a run for each student, all that other projects offer.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ours, pair, timing
from benchmarks.timing import Line, Sample, Target

STUDENTS = ("resnet8", "resnet20", "wrn_16_1", "resnet8x4")
PASS, ONLINE, VIEWS = "one pass", "views + teacher", "views"


def parts(seconds: Mapping[str, float], students: Sequence[str]) -> dict[str, float]:
    """Seconds of a step: of each part, their sum, the one pass, and a run for each student."""
    own = {name: seconds[name] - seconds[ONLINE] for name in students}
    return {
        "views": seconds[VIEWS],
        "teacher": seconds[ONLINE] - seconds[VIEWS],
        **own,
        "sum of the parts": seconds[ONLINE] + sum(own.values()),
        "one pass": seconds[PASS],
        "a run each": sum(seconds[name] for name in students),
    }


def line(found: Mapping[str, float], unit: str) -> Line:
    """The row of the table, in seconds of a step: less is better."""
    return Line(
        row="k students",
        unit=unit,
        ours=found["one pass"],
        floor=found["sum of the parts"],
        peer=found["a run each"],
        floor_name="sum of the parts",
        peer_name="a run each",
        target=Target(of="floor", sense="<=", bound=1.05),
    )


def main(words: Sequence[str] | None = None) -> None:
    """Prints one table and writes benchmarks/students.json."""
    args = arguments(words)
    pair.begin(args)
    key = timing.unit(args.device)
    with contextlib.ExitStack() as held:
        scratch = args.scratch or Path(held.enter_context(tempfile.TemporaryDirectory()))
        make = partial(
            ours.Job,
            shards=args.shards,
            teacher=args.teacher,
            batch_size=args.batch_size,
            device=args.device,
            scratch=scratch,
        )
        jobs = {
            PASS: make(students=tuple(args.students)),
            ONLINE: make(students=(ours.NOTHING,)),
            VIEWS: make(students=(ours.NOTHING,), views=1),
            **{name: make(students=(name,)) for name in args.students},
        }
        for name in (VIEWS, PASS):  # warm-up, and targets to cache
            ours.run(jobs[name], ours.FEW)
        contestants: dict[str, Callable[[], Sample]] = {
            name: partial(ours.steps_of, job, args.steps) for name, job in jobs.items()
        }
        table = timing.contest(contestants, args.rounds)
    found = parts({name: args.batch_size / row[key] for name, row in table.items()}, args.students)
    for name, value in found.items():
        print(f"{name:<20}{1000 * value:>10.2f} ms")
    print(f"a run each takes {found['a run each'] / found['one pass']:.2f} times one pass")
    unit = "CPU-seconds a step" if "cpu" in key else "seconds a step"
    result: dict[str, Any] = {
        "seconds_per_step": found,
        "measured": table,
        "command": pair.plain(args),
    }
    timing.write("students", [line(found, unit)], **result, machine=timing.machine(args.device))


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    options = pair.parser(__doc__)
    options.add_argument("--students", nargs="+", default=list(STUDENTS))
    return options.parse_args(words)


if __name__ == "__main__":
    main()
