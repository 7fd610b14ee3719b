"""Several students in one pass, compared with the sum of the parts and with separate runs.

Command: python -m benchmarks.students --shards DIR --teacher DIR [--students resnet8 resnet20 ...]
Every part is a training by `distill.run.train_students`. All parts are timed in one run, the rounds
alternate, and the figures are seconds per step. A trivial student (a Linear of the mean color)
shows the cost of the images and the teacher: `views` with cached targets, `views + teacher` with
online targets. The cost of a student is the additional time that its training takes. The floor is
`views + teacher` plus the cost of every student. The peer is a separate run for each student,
which is all that other projects offer.
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
    """Return the seconds per step of each part, their sum, the one pass and the separate runs."""
    costs = {name: seconds[name] - seconds[ONLINE] for name in students}
    return {
        "views": seconds[VIEWS],
        "teacher": seconds[ONLINE] - seconds[VIEWS],
        **costs,
        "sum of the parts": seconds[ONLINE] + sum(costs.values()),
        "one pass": seconds[PASS],
        "separate runs": sum(seconds[name] for name in students),
    }


def line(figures: Mapping[str, float], unit: str) -> Line:
    """Return the row of the table, in seconds per step; lower is better."""
    return Line(
        row="k students",
        unit=unit,
        ours=figures["one pass"],
        floor=figures["sum of the parts"],
        peer=figures["separate runs"],
        floor_name="sum of the parts",
        peer_name="separate runs",
        target=Target(of="floor", sense="<=", bound=1.05),
    )


def main(words: Sequence[str] | None = None) -> None:
    """Print the table and write benchmarks/students.json."""
    args = arguments(words)
    pair.begin(args)
    key = timing.unit(args.device)
    with contextlib.ExitStack() as stack:
        scratch = args.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory()))
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
            ONLINE: make(students=(ours.TRIVIAL,)),
            VIEWS: make(students=(ours.TRIVIAL,), views=1),
            **{name: make(students=(name,)) for name in args.students},
        }
        for name in (VIEWS, PASS):  # warm-up; this also writes the target cache
            ours.run(jobs[name], ours.WARM_UP)
        contestants: dict[str, Callable[[], Sample]] = {
            name: partial(ours.steps_of, job, args.steps) for name, job in jobs.items()
        }
        table = timing.contest(contestants, args.rounds)
    seconds = {name: args.batch_size / row[key] for name, row in table.items()}
    figures = parts(seconds, args.students)
    for name, value in figures.items():
        print(f"{name:<20}{1000 * value:>10.2f} ms")
    ratio = figures["separate runs"] / figures["one pass"]
    print(f"separate runs take {ratio:.2f} times as long as one pass")
    unit = "CPU-seconds per step" if "cpu" in key else "seconds per step"
    result: dict[str, Any] = {
        "seconds_per_step": figures,
        "measured": table,
        "command": pair.plain(args),
    }
    timing.write("students", [line(figures, unit)], **result, machine=timing.machine(args.device))


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    options = pair.parser(__doc__)
    options.add_argument("--students", nargs="+", default=list(STUDENTS), help="student networks")
    return options.parse_args(words)


if __name__ == "__main__":
    main()
