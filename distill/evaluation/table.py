"""A comparison as text: a table for a terminal or for Markdown, or lines for one student."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from distill.evaluation import cost
from distill.evaluation.compare import Comparison, StudentResult

MARK = "*"
NUM_WEAKEST = 5


def cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the column heads, and a row for each student; the teacher's row is last."""
    columns: dict[str, Callable[[StudentResult], str]] = {
        "student": lambda student: student.name,
        "top-1 %": lambda student: percent(student.result.top1),
        "top-5 %": lambda student: percent(student.result.top5),
        "ECE %": lambda student: percent(student.result.ece),
        "agreement %": lambda student: percent(student.result.agreement),
        "M parameters": lambda student: f"{student.cost.num_parameters / 1e6:,.3f}",
        "M MACs": lambda student: f"{student.cost.num_macs / 1e6:,.1f}",
        "MB": lambda student: f"{student.cost.num_bytes / 1e6:,.2f}",
        **{f"images/s at {batch}": partial(_rate_at, batch) for batch in cost.BATCHES},
        "front": lambda student: MARK if student.pareto else "",
    }
    if comparison.students[0].result.top5 is None:
        del columns["top-5 %"]
    if comparison.teacher is None:
        del columns["agreement %"]
    rows = [[text(student) for text in columns.values()] for student in comparison.students]
    if comparison.teacher is not None:
        first, *others = (text(comparison.teacher) for text in columns.values())
        rows.append([f"{first} (teacher)", *others])
    return list(columns), rows


def _rate_at(batch: int, student: StudentResult) -> str:
    return rate(student.cost.images_per_second[batch])


def percent(fraction: float | None) -> str:
    """Format a fraction in 0-1 as a percentage; None gives an empty string.

    Example:
        >>> percent(0.87314)
        '87.31'
    """
    return "" if fraction is None else f"{100 * fraction:.2f}"


def rate(per_second: float) -> str:
    """Format a rate with three significant digits, or as a whole number from 100.

    Example:
        >>> rate(1234.5), rate(3.214)
        ('1,234', '3.21')
    """
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def terminal(comparison: Comparison) -> Iterator[str]:
    """Yield the table in aligned columns, and notes on how to read it."""
    heads, rows = cells(comparison)
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for first, *others in (heads, *rows):
        numbers = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *numbers]).rstrip()
    yield from notes(comparison)


def markdown(comparison: Comparison) -> Iterator[str]:
    """Yield the table as Markdown, and notes on how to read it."""
    heads, rows = cells(comparison)
    rule = ["---", *("---:" for _ in heads[1:])]
    for row in (heads, rule, *rows):
        yield "| " + " | ".join(text if row is rule else _literal(text) for text in row) + " |"
    yield ""
    for note in notes(comparison):
        yield f"- {_literal(note)}"


def _literal(text: str) -> str:
    """Escape the characters that Markdown or HTML would interpret."""
    return re.sub(r"([\\|*_`<\[])", r"\\\1", " ".join(text.split()))


def notes(comparison: Comparison) -> Iterator[str]:
    """Yield the number of images, and what the columns mean."""
    result, measured = comparison.students[0].result, comparison.students[0].cost
    yield f"{result.num_images:,} images of {comparison.labeled}{_dropped(result.dropped)}"
    yield (
        f"{MARK} on the Pareto front: no student is more accurate with as few MACs, or as accurate "
        "with fewer"
    )
    yield f"MACs: multiply-adds per image. {machine(measured)}, from pixels to logits"


def machine(measured: cost.Cost) -> str:
    """Describe the device on which the images per second were measured."""
    threads = f"{measured.num_threads} thread{'s' * (measured.num_threads != 1)}"
    return f"Images/s: {measured.device}, {threads}, {measured.precision}"


def _dropped(dropped: Mapping[str, int]) -> str:
    return "".join(f", {count:,} dropped as {reason}" for reason, count in dropped.items())


def single(comparison: Comparison) -> Iterator[str]:
    """Yield the figures of the only student, one on each line."""
    student = comparison.students[0]
    result, measured = student.result, student.cost
    where = f"{student.directory} on {comparison.labeled}"
    yield f"{where}: {result.num_images:,} images, top-1 {percent(result.top1)} %"
    if result.top5 is not None:
        yield f"top-5 {percent(result.top5)} %"
    if result.agreement is not None:
        yield f"agreement with the teacher {percent(result.agreement)} %"
    yield f"calibration error (ECE) {percent(result.ece)} %"
    known = sorted((value, name) for name, value in result.per_class.items() if value is not None)
    weakest = (f"{name} {100 * value:.1f} %" for value, name in known[:NUM_WEAKEST])
    yield "weakest: " + "; ".join(weakest)
    for reason, count in result.dropped.items():
        yield f"dropped: {count:,} as {reason}"
    yield (
        f"cost: {measured.num_parameters / 1e6:,.3f} M parameters, "
        f"{measured.num_macs / 1e6:,.1f} M multiply-adds per image, "
        f"{measured.num_bytes / 1e6:,.2f} MB"
    )
    rates = ", ".join(
        f"{rate(value)} at batch size {batch}"
        for batch, value in measured.images_per_second.items()
    )
    yield f"{machine(measured)}: {rates}"
