"""A comparison as a chart: accuracy against multiply-adds, with the Pareto front."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from distill.evaluation.compare import Comparison, StudentResult

DPI = 160
WIDTH_INCHES, MIN_HEIGHT_INCHES, LINE_INCHES = 11.0, 5.0, 0.21
LEGEND_LEFT = 0.63  # as a fraction of the width of the figure
FRONT, BEHIND, TEACHER = "#1f5fa8", "#7d90a5", "#c2571a"
INK = "#333333"
MAX_NAME = 44


def draw(comparison: Comparison) -> bytes:
    """Draw the chart and return the bytes of a PNG file.

    Students are numbered points, the Pareto front is a line of steps, and the teacher is a star and
    a dashed line. A legend beside the chart lists the names by number. No state outside the figure
    is changed, and the same comparison gives the same bytes.
    """
    num_lines = len(comparison.students) + (comparison.teacher is not None)
    height = max(MIN_HEIGHT_INCHES, 1.2 + LINE_INCHES * num_lines)
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI)
    axes = figure.add_axes((0.07, 0.6 / height, LEGEND_LEFT - 0.09, 1 - 1.1 / height))
    _frame(axes, comparison)
    _front(axes, comparison)
    for number, student in enumerate(comparison.students, start=1):
        _point(axes, student, number)
    _legend(figure, comparison, height)
    file = io.BytesIO()
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(file, metadata={"Software": None})
    return file.getvalue()


def _at(student: StudentResult) -> tuple[float, float]:
    return student.cost.num_macs, 100 * student.result.top1


def _frame(axes: Any, comparison: Comparison) -> None:
    """Set the limits (with a margin), the ticks and the titles."""
    nets = [*comparison.students, *([comparison.teacher] if comparison.teacher else [])]
    macs, tops = zip(*map(_at, nets), strict=True)
    margin = max(0.08 * (max(tops) - min(tops)), 0.5)
    factor = max((max(macs) / min(macs)) ** 0.08, 1.3)
    axes.set_xscale("log")
    axes.set_xlim(min(macs) / factor, max(macs) * factor)
    axes.set_ylim(min(tops) - margin, max(tops) + margin)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    axes.set_xlabel("multiply-adds per image", color=INK)
    axes.set_ylabel("top-1 accuracy, %", color=INK)
    labeled = _short(comparison.labeled.rstrip("/").rpartition("/")[2])
    title = f"{comparison.students[0].result.num_images:,} images of {labeled}"
    axes.set_title(title, loc="left", fontsize=11, color=INK, parse_math=False)


def _front(axes: Any, comparison: Comparison) -> None:
    """Draw the front as steps, and the teacher as a star and a line at its accuracy."""
    points = [_at(student) for student in comparison.students if student.pareto]
    corners = [points[0]]
    for (_, low), (macs, top) in pairwise(points):
        corners += [(macs, low), (macs, top)]
    corners.append((axes.get_xlim()[1], points[-1][1]))
    axes.plot(*zip(*corners, strict=True), color=FRONT, lw=1.4, alpha=0.7, zorder=2)
    if comparison.teacher is not None:
        macs, top = _at(comparison.teacher)
        axes.axhline(top, color=TEACHER, lw=1.2, ls=(0, (5, 3)), zorder=1)
        axes.plot(macs, top, "*", ms=13, mfc=TEACHER, mec="white", zorder=3)


def _point(axes: Any, student: StudentResult, number: int) -> None:
    """Draw a disk with the student's number; disks on the front are filled and lie on top."""
    face, ink = (FRONT, "white") if student.pareto else ("white", BEHIND)
    edge = FRONT if student.pareto else BEHIND
    order = 4 if student.pareto else 3
    axes.plot(*_at(student), "o", ms=12, mfc=face, mec=edge, mew=1.2, zorder=order)
    style: Any = {"ha": "center", "va": "center_baseline", "fontsize": 7.5, "color": ink}
    axes.annotate(str(number), _at(student), zorder=order, **style)


def _legend(figure: Any, comparison: Comparison, height: float) -> None:
    """Write a line `number  accuracy  name` for each net beside the chart."""
    rows = [
        (str(number), student, FRONT if student.pareto else BEHIND)
        for number, student in enumerate(comparison.students, start=1)
    ]
    if comparison.teacher is not None:
        rows.append(("*", comparison.teacher, TEACHER))
    for line, (mark, net, color) in enumerate(rows):
        y = 1 - (0.6 + LINE_INCHES * line) / height
        style: Any = {"fontsize": 9, "color": color, "parse_math": False}
        name = f"teacher {_short(net.name)}" if net is comparison.teacher else _short(net.name)
        figure.text(LEGEND_LEFT + 0.02, y, mark, ha="right", **style)
        figure.text(LEGEND_LEFT + 0.06, y, f"{100 * net.result.top1:.1f}", ha="right", **style)
        figure.text(LEGEND_LEFT + 0.07, y, name, **style)


def _short(name: str) -> str:
    """Escape the characters that the font may lack, and shorten the name to MAX_NAME characters.

    matplotlib warns about a missing character and draws a box.
    """
    plain = "".join(letter if " " <= letter <= "~" else ascii(letter)[1:-1] for letter in name)
    half = (MAX_NAME - 3) // 2
    return plain if len(plain) <= MAX_NAME else f"{plain[:half]}...{plain[-half:]}"
