"""A comparison as one HTML page that needs no other file: table, chart, accuracies by class."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from html import escape

from distill.evaluation import table
from distill.evaluation.compare import Comparison

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 75em; margin: 2em auto;
  padding: 0 1em }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin-top: 2em }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25em .8em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
th { border-bottom: 2px solid #888; vertical-align: bottom; overflow-wrap: anywhere }
tr.front td { font-weight: 600; color: #1f5fa8 } tr.teacher td { color: #c2571a }
img { max-width: 100%; width: 60em } .note { color: #555; margin: .2em 0 }
"""


def page(comparison: Comparison, png: bytes) -> str:
    """The page; whatever came from a card or a path is escaped."""
    return "\n".join(_lines(comparison, png)) + "\n"


def _lines(comparison: Comparison, png: bytes) -> Iterator[str]:
    title = escape(f"{len(comparison.students)} students on {comparison.labeled}")
    yield f'<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>'
    yield f"<style>{STYLE}</style>\n<h1>{title}</h1>"
    heads, rows = table.cells(comparison)
    marks = ["front" if student.pareto else "" for student in comparison.students] + ["teacher"]
    yield from _table(heads, rows, marks=marks)
    for note in table.notes(comparison):
        yield f'<p class="note">{escape(note)}</p>'
    data = base64.b64encode(png).decode()
    yield f'<p><img alt="Accuracy against multiply-adds" src="data:image/png;base64,{data}"></p>'
    yield '<h2>Accuracy by class, %</h2>\n<p class="note">The weakest class first.</p>'
    yield from _classes(comparison)
    yield "</html>"


def _classes(comparison: Comparison) -> Iterator[str]:
    """A row for each class, those first that the students, all in all, know least."""
    nets = [*comparison.students, *([comparison.teacher] if comparison.teacher else [])]
    shares = {
        name: [net.result.per_class[name] for net in nets] for name in nets[0].result.per_class
    }
    known = {name: [share for share in row if share is not None] for name, row in shares.items()}
    order = sorted(shares, key=lambda name: sum(known[name]) / max(len(known[name]), 1))
    order.sort(key=lambda name: not known[name])
    heads = ["class", *(net.name for net in nets)]
    rows = [[name, *(table.percent(share) or "no image" for share in shares[name])]
            for name in order]  # fmt: skip
    shades = [["", *map(_shade, shares[name])] for name in order]
    yield from _table(heads, rows, shades=shades)


def _shade(share: float | None) -> str:
    """A cell's background: the paler, the better."""
    return "" if share is None else f' style="background: rgb(194 87 26 / {(1 - share) * 0.5:.2f})"'


def _table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    marks: Sequence[str] = (),
    shades: Sequence[Sequence[str]] = (),
) -> Iterator[str]:
    """Escaped cells; `marks` are the rows' CSS classes, `shades` the cells' further attributes."""
    yield '<div class="wide"><table>\n<tr>'
    yield "".join(f"<th>{escape(head)}</th>" for head in heads) + "</tr>"
    for number, row in enumerate(rows):
        mark = f' class="{marks[number]}"' if marks and marks[number] else ""
        extra = shades[number] if shades else [""] * len(row)
        texts = (f"<td{more}>{escape(text)}</td>" for text, more in zip(row, extra, strict=True))
        yield f"<tr{mark}>{''.join(texts)}</tr>"
    yield "</table></div>"
