"""Standings as lines: a table for the terminal or for Markdown, or a few lines for one student."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from distill.evaluation import cost
from distill.evaluation.compare import Comparison, StudentResult

MARK = "*"
NUM_WEAKEST = 5


def cells(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """The heads of the columns, and a row for each student and then the teacher."""
    columns: dict[str, Callable[[StudentResult], str]] = {
        "student": lambda one: one.name,
        "top-1 %": lambda one: percent(one.result.top1),
        "top-5 %": lambda one: percent(one.result.top5),
        "ECE %": lambda one: percent(one.result.ece),
        "agreement %": lambda one: percent(one.result.agreement),
        "M parameters": lambda one: f"{one.cost.num_parameters / 1e6:,.3f}",
        "M MACs": lambda one: f"{one.cost.num_macs / 1e6:,.1f}",
        "MB": lambda one: f"{one.cost.num_bytes / 1e6:,.2f}",
        **{f"images/s at {batch}": partial(_rate_at, batch) for batch in cost.BATCHES},
        "front": lambda one: MARK if one.leads else "",
    }
    if found.students[0].result.top5 is None:
        del columns["top-5 %"]
    if found.teacher is None:
        del columns["agreement %"]
    rows = [[text(one) for text in columns.values()] for one in found.students]
    if found.teacher is not None:
        first, *others = (text(found.teacher) for text in columns.values())
        rows.append([f"{first} (the teacher)", *others])
    return list(columns), rows


def _rate_at(batch: int, one: StudentResult) -> str:
    return rate(one.cost.images_per_second[batch])


def percent(share: float | None) -> str:
    """`87.31`; nothing for None."""
    return "" if share is None else f"{100 * share:.2f}"


def rate(per_second: float) -> str:
    """`1,234` or `3.21`."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def terminal(found: Comparison) -> Iterator[str]:
    """The table in aligned columns, and how to read it."""
    heads, rows = cells(found)
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for first, *others in (heads, *rows):
        numbers = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *numbers]).rstrip()
    yield from notes(found)


def markdown(found: Comparison) -> Iterator[str]:
    """The table as Markdown, and how to read it."""
    heads, rows = cells(found)
    rule = ["---", *("---:" for _ in heads[1:])]
    for row in (heads, rule, *rows):
        yield "| " + " | ".join(text if row is rule else _literal(text) for text in row) + " |"
    yield ""
    for note in notes(found):
        yield f"- {_literal(note)}"


def _literal(text: str) -> str:
    """As it is, and not what Markdown or HTML would make of it."""
    return re.sub(r"([\\|*_`<\[])", r"\\\1", " ".join(text.split()))


def notes(found: Comparison) -> Iterator[str]:
    """What was evaluated on what, and what the columns mean."""
    result, spent = found.students[0].result, found.students[0].cost
    yield f"{result.num_images:,} images of {found.labeled}{_dropped(result.dropped)}"
    yield f"{MARK} on the front: none is more accurate for as few MACs, or as accurate for fewer"
    yield f"MACs: multiply-adds of one image. {machine(spent)}, from pixels to logits"


def machine(spent: cost.Cost) -> str:
    """Where the images per second were measured."""
    threads = f"{spent.num_threads} thread{'s' * (spent.num_threads != 1)}"
    return f"Images/s: {spent.device}, {threads}, {spent.precision}"


def _dropped(dropped: Mapping[str, int]) -> str:
    return "".join(f", {count:,} dropped as {reason}" for reason, count in dropped.items())


def single(found: Comparison) -> Iterator[str]:
    """The figures of the only student, one by one."""
    one = found.students[0]
    result, spent = one.result, one.cost
    where = f"{one.directory} on {found.labeled}"
    yield f"{where}: {result.num_images:,} images, top-1 {percent(result.top1)} %"
    if result.top5 is not None:
        yield f"top-5 {percent(result.top5)} %"
    if result.agreement is not None:
        yield f"agreement with the teacher {percent(result.agreement)} %"
    yield f"calibration error (ECE) {percent(result.ece)} %"
    known = sorted((value, name) for name, value in result.per_class.items() if value is not None)
    weakest = (f"{name} {100 * value:.1f} %" for value, name in known[:NUM_WEAKEST])
    yield "weakest: " + ", ".join(weakest)
    for reason, count in result.dropped.items():
        yield f"dropped: {count:,} {reason}"
    yield (
        f"cost: {spent.num_parameters / 1e6:,.3f} M parameters, {spent.num_macs / 1e6:,.1f} M "
        f"multiply-adds an image, {spent.num_bytes / 1e6:,.2f} MB"
    )
    rates = ", ".join(
        f"{rate(value)} at batch {batch}" for batch, value in spent.images_per_second.items()
    )
    yield f"{machine(spent)}: {rates}"
