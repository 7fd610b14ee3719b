"""Standings as a picture: accuracy against multiply-adds, and the front of the two."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from distill.evaluation.compare import Comparison, StudentResult

INCHES = (8.0, 5.0)
DPI = 160
FRONT, BEHIND, TEACHER = "#1f5fa8", "#8fa3b8", "#c2571a"
INK, FAINT = "#333333", "#5b6b7b"
SMALL: Any = {"fontsize": 8.5, "color": FAINT}
LONGEST = 34
MARKER_PIXELS = 9.0
# Where a name may stand: (right, up) of its point, in widths and heights of the name, tried from
# the nearest ring outwards.
SIDES = ((0, -0.5), (-1, -0.5), (-0.5, 0), (-0.5, -1), (0, 0), (0, -1), (-1, 0), (-1, -1))
RINGS_PIXELS = (14.0, 26.0, 44.0, 70.0, 100.0)
NUM_NEAR = 3  # of these rings, for names that matter less
LEADER_PIXELS = 30.0  # a name further off than this gets a line to its point

Box = tuple[float, float, float, float]


def draw(found: Comparison) -> bytes:
    """The PNG: students as points, the front as steps, the teacher as a star and a line.

    Names are put where they cover nothing; one for which there is no such place is left out, those
    on the front last. No state outside the figure is touched.
    """
    figure = Figure(figsize=INCHES, dpi=DPI)
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, 0.12, 0.88, 0.78))
    _frame(axes, found)
    lines = _lines(axes, found)
    for one in found.students:
        face = FRONT if one.leads else "white"
        edge = FRONT if one.leads else BEHIND
        axes.plot(*_point(one), "o", ms=7, mfc=face, mec=edge, mew=1.5, zorder=3)
    _label(axes, canvas, found, lines)
    file = io.BytesIO()
    canvas.print_png(file, metadata={"Software": None})
    return file.getvalue()


def _point(one: StudentResult) -> tuple[float, float]:
    return one.cost.num_macs, 100 * one.result.top1


def _all(found: Comparison) -> list[StudentResult]:
    return [*found.students, *([found.teacher] if found.teacher else [])]


def _frame(axes: Any, found: Comparison) -> None:
    """Limits with room for names, ticks, titles."""
    macs, tops = zip(*map(_point, _all(found)), strict=True)
    room = max(0.12 * (max(tops) - min(tops)), 0.5)
    widen = max((max(macs) / min(macs)) ** 0.12, 1.5)
    axes.set_xscale("log")
    axes.set_xlim(min(macs) / widen, max(macs) * widen)
    axes.set_ylim(min(tops) - room, max(tops) + room)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    axes.set_xlabel("multiply-adds of one image", color=INK)
    axes.set_ylabel("top-1 accuracy, %", color=INK)
    num_images = found.students[0].result.num_images
    title = f"Accuracy against cost: {num_images:,} images of {_plain(_base(found.labeled))}"
    axes.set_title(title, loc="left", fontsize=11, color=INK, parse_math=False)


def _lines(axes: Any, found: Comparison) -> list[Box]:
    """Draws the front and the teacher's accuracy; the boxes in pixels that names should spare."""
    right = axes.get_xlim()[1]
    leaders = [_point(one) for one in found.students if one.leads]
    corners = [leaders[0]]
    for (_, low), (macs, top) in pairwise(leaders):
        corners += [(macs, low), (macs, top)]
    corners.append((right, leaders[-1][1]))
    axes.plot(*zip(*corners, strict=True), color=FRONT, lw=1.4, alpha=0.7, zorder=2)
    ends = list(pairwise(corners))
    if found.teacher is not None:
        macs, top = _point(found.teacher)
        axes.axhline(top, color=TEACHER, lw=1.2, ls=(0, (5, 3)), zorder=1)
        axes.plot(macs, top, "*", ms=13, mfc=TEACHER, mec="white", zorder=3)
        ends.append(((axes.get_xlim()[0], top), (right, top)))
    pixels = [axes.transData.transform(pair) for pair in ends]
    return [(a[0] - 1, min(a[1], b[1]) - 1, b[0] + 1, max(a[1], b[1]) + 1) for a, b in pixels]


def _label(axes: Any, canvas: Any, found: Comparison, lines: Sequence[Box]) -> None:
    """Names beside their points, those that matter first and, where need be, far off or across a
    line; never on a name or a point. How many found no place is said below.
    """
    shown = _all(found)
    points = [axes.transData.transform(_point(one)) for one in shown]
    reach = MARKER_PIXELS
    taken = [(x - reach, y - reach, x + reach, y + reach) for x, y in points]
    frame = axes.get_window_extent(canvas.get_renderer()).extents
    texts, num_left = _texts(found), 0
    for at in sorted(range(len(shown)), key=lambda at: not _matters(shown[at], found)):
        one = shown[at]
        color = TEACHER if one is found.teacher else FRONT if one.leads else FAINT
        how = {**SMALL, "color": color, "zorder": 4, "parse_math": False}
        note = axes.annotate(texts[at], _point(one), (0, 0), textcoords="offset pixels", **how)
        size = note.get_window_extent(canvas.get_renderer()).size
        matters = _matters(one, found)
        rings = RINGS_PIXELS if matters else RINGS_PIXELS[:NUM_NEAR]
        spots = [box for box in _spots(points[at], rings, *size) if _within(box, frame)]
        free = [box for box in spots if not any(_meet(box, other) for other in taken)]
        clear = [box for box in free if not any(_meet(box, other) for other in lines)]
        box = next(iter([*clear, *(free if matters else [])]), None)
        if box is None:
            note.remove()
            num_left += 1
            continue
        taken.append(box)
        _move(axes, note, points[at], box, color)
    if num_left:
        axes.figure.text(0.97, 0.02, f"{num_left} unnamed: see the table", ha="right", **SMALL)


def _matters(one: StudentResult, found: Comparison) -> bool:
    return one.leads or one is found.teacher


def _move(axes: Any, note: Any, point: Sequence[float], box: Box, color: str) -> None:
    """Puts a name into its box, with a line to its point where that is far."""
    x, y = point
    note.set_position((box[0] - x, box[1] - y))
    note.set_verticalalignment("bottom")
    near_x, near_y = min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])
    if (near_x - x) ** 2 + (near_y - y) ** 2 > LEADER_PIXELS**2:
        ends = axes.transData.inverted().transform([(x, y), (near_x, near_y)])
        axes.plot(*ends.T, color=color, lw=0.6, zorder=2)


def _spots(
    point: Sequence[float], rings: Sequence[float], width: float, height: float
) -> Iterator[Box]:
    """Boxes for a name of this size around a point, the preferred first; pixels."""
    x, y = point
    for ring in rings:
        for across, up in SIDES:
            left = x + across * width + ring * (2 * across + 1 if across in (0, -1) else 0)
            low = y + up * height + ring * (2 * up + 1 if up in (0, -1) else 0)
            yield left, low, left + width, low + height


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _within(box: Box, frame: Sequence[float]) -> bool:
    return bool(
        box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]
    )


def _texts(found: Comparison) -> list[str]:
    """What stands at each point: names without the words that all begin with, and the accuracy."""
    names = [one.name for one in found.students]
    words = [re.split(r"(?<=[-_./])", name) for name in names]
    same = takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))
    num_same = len(list(same)) if len(names) > 1 else 0
    texts = [
        _short(_plain("".join(each[num_same:]) or name))
        for name, each in zip(names, words, strict=True)
    ]
    if found.teacher is not None:
        texts.append(f"teacher {_short(_plain(found.teacher.name))}")
    tops = [one.result.top1 for one in _all(found)]
    return [f"{text}  {100 * top:.1f}" for text, top in zip(texts, tops, strict=True)]


def _short(name: str) -> str:
    keep = (LONGEST - 3) // 2
    return name if len(name) <= LONGEST else f"{name[:keep]}...{name[-keep:]}"


def _plain(name: str) -> str:
    """Without letters that the font may lack: each would be a warning and a box."""
    return "".join(one if " " <= one <= "~" else ascii(one)[1:-1] for one in name)


def _base(labeled: str) -> str:
    return _short(labeled.rstrip("/").rpartition("/")[2])
