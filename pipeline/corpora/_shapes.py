"""The shapes of the demo images as signed distances: primitives, and one function per class.

A shape takes pixel coordinates `x`, `y` [n, 32, 32] in its own frame, in which the shape spans
about -1 to 1 and y points down, and draws `v` [12, n, 1, 1], uniform in [0, 1), which vary it. It
returns layers from back to front. A layer is a distance [n, 32, 32] and the tone that fills it. The
distance is negative inside, is in units of the frame, and has to be exact only near the edge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

# All arrays are float32, but numpy's stubs lose the type in arithmetic with Python numbers.
Floats: TypeAlias = npt.NDArray[Any]
Real: TypeAlias = "Floats | float"
Layers: TypeAlias = list[tuple[Floats, int]]
Shape: TypeAlias = Callable[[Floats, Floats, Floats], Layers]

BODY, SECOND, DARK, LIGHT = range(4)
VARIATIONS = 12


def span(v: Floats, low: float, high: float) -> Floats:
    """Scale uniform draws in [0, 1) to [low, high)."""
    return low + (high - low) * v


def disc(x: Floats, y: Floats, cx: Real, cy: Real, r: Real) -> Floats:
    """A disc of radius r around (cx, cy)."""
    dx, dy = x - cx, y - cy
    return np.sqrt(dx * dx + dy * dy) - r


def oval(x: Floats, y: Floats, cx: Real, cy: Real, a: Real, b: Real) -> Floats:
    """An ellipse with half axes a and b."""
    dx, dy = (x - cx) / a, (y - cy) / b
    return (np.sqrt(dx * dx + dy * dy) - 1) * np.minimum(a, b)


def box(x: Floats, y: Floats, cx: Real, cy: Real, w: Real, h: Real) -> Floats:
    """A rectangle with half sides w and h."""
    return np.maximum(np.abs(x - cx) - w, np.abs(y - cy) - h)


def bar(x: Floats, y: Floats, ax: Real, ay: Real, bx: Real, by: Real, r: Real) -> Floats:
    """A stroke of half width r with round ends from (ax, ay) to (bx, by)."""
    ux, uy = bx - ax, by - ay
    px, py = x - ax, y - ay
    t = np.clip((px * ux + py * uy) / (ux * ux + uy * uy + 1e-6), 0, 1)
    dx, dy = px - t * ux, py - t * uy
    return np.sqrt(dx * dx + dy * dy) - r


def hull(x: Floats, y: Floats, *corners: tuple[Real, Real]) -> Floats:
    """A convex polygon whose corners are given clockwise, as seen on the screen."""
    result: Any = -np.inf
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        nx, ny = by - ay, ax - bx
        length = np.sqrt(nx * nx + ny * ny + 1e-9)
        result = np.maximum(result, ((x - ax) * nx + (y - ay) * ny) / length)
    return np.asarray(result, dtype=np.float32)


def fold(x: Floats, y: Floats, count: Floats) -> tuple[Floats, Floats, Floats]:
    """Fold coordinates into one of `count` equal sectors; also return half a sector in radians."""
    sector = np.float32(2 * np.pi) / count
    angle = np.abs(np.mod(np.arctan2(x, -y) + sector / 2, sector) - sector / 2)
    radius = np.sqrt(x * x + y * y)
    return radius * np.cos(angle), radius * np.sin(angle), sector / 2


def boat(x: Floats, y: Floats, v: Floats) -> Layers:
    """A hull, a mast and one or two sails."""
    w, keel, lean = span(v[0], 0.65, 0.95), span(v[1], 0.35, 0.65), span(v[2], -0.1, 0.15)
    top = span(v[3], -0.95, -0.7)
    body = hull(x, y, (-w, 0.3), (w, 0.3), (w * keel, 0.8), (-w * keel, 0.8))
    mast = bar(x, y, lean, 0.3, lean, top, 0.05)
    main = hull(
        x, y, (lean + 0.08, top + 0.1), (lean + span(v[4], 0.4, 0.7), 0.15), (lean + 0.08, 0.15)
    )
    jib = hull(
        x, y, (lean - 0.08, top + 0.25), (lean - 0.08, 0.15), (lean - span(v[5], 0.3, 0.6), 0.15)
    )
    jib = jib + (v[6] < 0.35) * np.float32(9)
    band = np.maximum(body, np.abs(y - 0.42) - 0.06)
    return [(mast, DARK), (main, LIGHT), (jib, SECOND), (body, BODY), (band, SECOND)]


def car(x: Floats, y: Floats, v: Floats) -> Layers:
    """A low body, a cabin with windows, two wheels."""
    roof, front = span(v[0], -0.55, -0.3), span(v[1], 0.3, 0.6)
    body = box(x, y, 0, 0.15, 0.8, span(v[2], 0.12, 0.2)) - 0.1
    cabin = hull(x, y, (-0.4, roof), (0.25, roof), (front, 0.05), (span(v[3], -0.75, -0.5), 0.05))
    glass = np.maximum(cabin + 0.1, 0.04 - np.abs(x + 0.05))
    r, at = span(v[4], 0.19, 0.28), span(v[5], 0.42, 0.58)
    wheels = np.minimum(disc(x, y, -at, 0.4, r), disc(x, y, at, 0.4, r))
    lamp = disc(x, y, 0.85, 0.1, 0.08)
    return [
        (np.minimum(body, cabin), BODY), (glass, LIGHT), (lamp, LIGHT),
        (wheels, DARK), (wheels + r * 0.6, LIGHT),
    ]  # fmt: skip


def cup(x: Floats, y: Floats, v: Floats) -> Layers:
    """A tapered cup with a ring as handle, its content, and perhaps a saucer."""
    top, low, high = span(v[0], 0.45, 0.62), span(v[1], 0.28, 0.5), span(v[2], -0.6, -0.4)
    body = hull(x, y, (-top, high), (top, high), (low, 0.65), (-low, 0.65))
    ring = np.abs(oval(x, y, top - 0.02, 0.02, 0.36, span(v[3], 0.3, 0.42))) - 0.08
    rim = oval(x, y, 0, high, top, 0.14)
    band = np.maximum(body, np.abs(y - span(v[4], -0.1, 0.4)) - 0.1)
    saucer = oval(x, y, 0, 0.72, 0.8, 0.12) + (v[5] < 0.5) * np.float32(9)
    return [
        (saucer, SECOND), (ring, BODY), (np.minimum(body, rim), BODY),
        (band, SECOND), (rim + 0.05, DARK),
    ]  # fmt: skip


def fish(x: Floats, y: Floats, v: Floats) -> Layers:
    """An oval body with a forked tail, fins, stripes and an eye."""
    b = span(v[0], 0.28, 0.5)
    body = oval(x, y, 0.15, 0, 0.72, b)
    tip = span(v[1], 0.3, 0.5)
    tail = np.minimum(
        hull(x, y, (-0.95, -tip), (-0.4, 0.0), (-0.8, 0.08)),
        hull(x, y, (-0.4, 0.0), (-0.95, tip), (-0.8, -0.08)),
    )
    fin = hull(x, y, (0.05, -b - span(v[2], 0.12, 0.3)), (0.4, -b * 0.7), (-0.2, -b * 0.7))
    stripe = np.abs(np.abs(x - span(v[3], -0.1, 0.2)) - 0.15) - 0.05
    stripe = np.maximum(np.maximum(stripe, body + 0.04), (v[4] < 0.5) * np.float32(9))
    eye = disc(x, y, 0.55, -0.1, 0.12)
    return [
        (tail, SECOND), (fin, SECOND), (body, BODY),
        (stripe, SECOND), (eye, LIGHT), (eye + 0.06, DARK),
    ]  # fmt: skip


def house(x: Floats, y: Floats, v: Floats) -> Layers:
    """Walls, a pitched roof, a door, a window, perhaps a chimney."""
    w, eaves = span(v[0], 0.45, 0.72), span(v[1], -0.2, 0.05)
    walls = hull(x, y, (-w, eaves), (w, eaves), (w, 0.8), (-w, 0.8))
    peak = (span(v[2], -0.2, 0.2), span(v[3], -0.95, -0.65))
    roof = hull(x, y, peak, (w + 0.16, eaves), (-w - 0.16, eaves))
    stack = box(x, y, w * 0.6, -0.55, 0.09, 0.25) + (v[4] < 0.5) * np.float32(9)
    door = box(x, y, span(v[5], -0.25, 0.25), 0.58, 0.13, 0.22)
    side = np.where(v[5] < 0.5, np.float32(0.55), np.float32(-0.55)) * w
    window = box(x, y, side, 0.25, 0.12, 0.12)
    return [(stack, DARK), (walls, BODY), (roof, SECOND), (door, DARK), (window, LIGHT)]


def key(x: Floats, y: Floats, v: Floats) -> Layers:
    """A ring, a shaft and two or three teeth."""
    r, end = span(v[0], 0.26, 0.38), span(v[1], 0.75, 0.95)
    ring = np.abs(disc(x, y, -0.55, 0, r)) - span(v[2], 0.09, 0.14)
    shaft = bar(x, y, -0.55 + r, 0, end, 0, 0.09)
    long = span(v[3], 0.2, 0.36)
    teeth = np.minimum(
        box(x, y, end - 0.05, long / 2, 0.07, long / 2),
        box(x, y, end - 0.3, long * 0.4, 0.07, long * 0.4),
    )
    third = box(x, y, end - 0.55, long / 2, 0.06, long / 2) + (v[4] < 0.5) * np.float32(9)
    return [(np.minimum(np.minimum(ring, shaft), np.minimum(teeth, third)), BODY)]


def mushroom(x: Floats, y: Floats, v: Floats) -> Layers:
    """A thick stem under a spotted cap."""
    w, h, brim = span(v[0], 0.6, 0.92), span(v[1], 0.55, 0.85), span(v[2], -0.05, 0.2)
    thick = span(v[3], 0.16, 0.3)
    stem = hull(x, y, (-thick, -0.1), (thick, -0.1), (thick * 1.3, 0.85), (-thick * 1.3, 0.85))
    cap = np.maximum(oval(x, y, 0, brim, w, h), y - brim)
    at = span(v[4], -0.15, 0.15)
    spots = np.minimum(
        disc(x, y, at, brim - h * 0.6, 0.13),
        np.minimum(disc(x, y, at - 0.4, brim - 0.2, 0.11), disc(x, y, at + 0.38, brim - 0.24, 0.1)),
    )
    spots = np.maximum(spots, cap + 0.03) + (v[5] < 0.3) * np.float32(9)
    return [(stem, LIGHT), (cap, BODY), (spots, LIGHT)]


def star(x: Floats, y: Floats, v: Floats) -> Layers:
    """A star of five points, sometimes six."""
    count = np.where(v[0] < 0.85, np.float32(5), np.float32(6))
    px, py, half = fold(x, y + 0.05, count)
    outer, inner = span(v[1], 0.8, 0.95), span(v[2], 0.34, 0.5)
    ex, ey = inner * np.cos(half) - outer, inner * np.sin(half)
    edge = ((px - outer) * ey - py * ex) / np.sqrt(ex * ex + ey * ey)
    core = edge + span(v[3], 0.15, 0.4) + (v[4] < 0.6) * np.float32(9)
    return [(edge, BODY), (core, SECOND)]


def tree(x: Floats, y: Floats, v: Floats) -> Layers:
    """A trunk under a round crown or two stacked cones."""
    thick, r = span(v[0], 0.08, 0.16), span(v[1], 0.32, 0.46)
    trunk = box(x, y, 0, 0.6, thick, 0.35)
    crown = np.minimum(
        disc(x, y, 0, span(v[2], -0.6, -0.4), r),
        np.minimum(disc(x, y, -0.34, -0.1, r), disc(x, y, 0.34, span(v[3], -0.2, 0), r)),
    )
    w = span(v[4], 0.45, 0.68)
    cones = np.minimum(
        hull(x, y, (0.0, -0.95), (w * 0.75, -0.15), (-w * 0.75, -0.15)),
        hull(x, y, (0.0, -0.5), (w, 0.4), (-w, 0.4)),
    )
    crown = np.where(v[5] < 0.6, crown, cones)
    fruit = np.minimum(disc(x, y, -0.25, -0.2, 0.1), disc(x, y, 0.25, -0.3, 0.1))
    return [(trunk, DARK), (crown, BODY), (fruit + (v[6] < 0.7) * np.float32(9), SECOND)]


def umbrella(x: Floats, y: Floats, v: Floats) -> Layers:
    """A ribbed canopy with a scalloped edge on a thin crooked pole."""
    w, h, brim = span(v[0], 0.75, 0.95), span(v[1], 0.55, 0.85), span(v[2], -0.1, 0.1)
    third = w * 2 / 3
    scallops = np.minimum(
        oval(x, y, 0, brim, third / 2, 0.16),
        np.minimum(
            oval(x, y, -third, brim, third / 2, 0.16), oval(x, y, third, brim, third / 2, 0.16)
        ),
    )
    canopy = np.maximum(np.maximum(oval(x, y, 0, brim, w, h), y - brim), -scallops)
    ribs = np.maximum(np.abs(oval(x, y, 0, brim, third / 2, h)) - 0.03, canopy)
    pole = bar(x, y, 0, -h, 0, 0.75, 0.05)
    hook = np.maximum(np.abs(disc(x, y, 0.15, 0.75, 0.15)) - 0.05, 0.75 - y)
    return [(np.minimum(pole, hook), DARK), (canopy, BODY), (ribs, SECOND)]


CLASS_SHAPES: dict[str, Shape] = {
    "boat": boat,
    "car": car,
    "cup": cup,
    "fish": fish,
    "house": house,
    "key": key,
    "mushroom": mushroom,
    "star": star,
    "tree": tree,
    "umbrella": umbrella,
}
