"""Images of the demo corpus that belong to no class: near misses, patterns and crowds.

Every function is a shape as described in `_shapes`: pixel coordinates `x`, `y` [n, 32, 32] and
draws `v` [12, n, 1, 1] give layers from back to front.
"""

from __future__ import annotations

import numpy as np

from pipeline.corpora._shapes import (
    BODY,
    CLASS_SHAPES,
    DARK,
    LIGHT,
    SECOND,
    Floats,
    Layers,
    Shape,
    bar,
    box,
    disc,
    fold,
    hull,
    oval,
    span,
)


def shed(x: Floats, y: Floats, v: Floats) -> Layers:
    """A house without a roof."""
    w, top = span(v[0], 0.5, 0.8), span(v[1], -0.5, 0)
    walls = hull(x, y, (-w, top), (w, top), (w, 0.8), (-w, 0.8))
    door = box(x, y, span(v[2], -0.3, 0.3), 0.55, 0.14, 0.25)
    windows = box(np.abs(x), y, w * 0.55, top + 0.25, 0.13, 0.11)
    return [(walls, BODY), (door, DARK), (windows, LIGHT)]


def pile(x: Floats, y: Floats, v: Floats) -> Layers:
    """Two or three triangles on top of each other."""
    layers: Layers = []
    for row, tone in enumerate((BODY, SECOND, LIGHT)):
        w, up = span(v[row], 0.45, 0.85), 0.75 - 0.55 * row
        slip = span(v[row + 3], -0.3, 0.3)
        layers.append((hull(x, y, (slip, up - 0.75), (slip + w, up), (slip - w, up)), tone))
    return layers


def leaf(x: Floats, y: Floats, v: Floats) -> Layers:
    """A leaf: the body of a fish without its tail, with veins and a stalk."""
    b = span(v[0], 0.5, 0.9)
    blade = np.maximum(disc(x, y, 0.1, b, b + 0.35), disc(x, y, 0.1, -b, b + 0.35))
    stalk = bar(x, y, -0.95, 0, 0.75, 0, 0.05)
    veins = np.abs(np.mod(x - np.abs(y), 0.35) - 0.17) - 0.04
    return [(blade, BODY), (np.maximum(veins, blade + 0.05), SECOND), (stalk, DARK)]


def flower(x: Floats, y: Floats, v: Floats) -> Layers:
    """Round petals around a disc, similar to a star without points."""
    px, py, _ = fold(x, y, np.floor(span(v[0], 5, 9)))
    petals = oval(px, py, 0.55, 0, 0.38, span(v[1], 0.18, 0.3))
    heart = disc(x, y, 0, 0, span(v[2], 0.2, 0.35))
    return [(petals, BODY), (heart, SECOND)]


def lollipop(x: Floats, y: Floats, v: Floats) -> Layers:
    """A disc on a stick, similar to a key without teeth or to a round tree."""
    r = span(v[0], 0.32, 0.5)
    head = disc(x, y, -0.45, 0, r)
    swirl = np.abs(disc(x, y, -0.45, 0, r * 0.55)) - 0.06
    return [(bar(x, y, -0.4, 0, 0.95, 0, 0.07), LIGHT), (head, BODY), (swirl, SECOND)]


def bowl(x: Floats, y: Floats, v: Floats) -> Layers:
    """A cup without a handle."""
    w, foot = span(v[0], 0.65, 0.9), span(v[1], 0.2, 0.4)
    body = np.maximum(oval(x, y, 0, -0.2, w, 0.85), -0.2 - y)
    rim = oval(x, y, 0, -0.2, w, span(v[2], 0.1, 0.2))
    base = box(x, y, 0, 0.68, foot, 0.08)
    return [(base, DARK), (np.minimum(body, rim), BODY), (rim + 0.05, LIGHT)]


def lamp(x: Floats, y: Floats, v: Floats) -> Layers:
    """A shade on a thin stand, similar to a mushroom or an umbrella."""
    top, low = span(v[0], 0.15, 0.4), span(v[1], 0.5, 0.85)
    shade = hull(x, y, (-top, -0.85), (top, -0.85), (low, 0.0), (-low, 0.0))
    stand = np.minimum(bar(x, y, 0, 0, 0, 0.8, 0.05), oval(x, y, 0, 0.8, 0.4, 0.1))
    return [(stand, DARK), (shade, BODY), (np.maximum(shade, np.abs(y + 0.1) - 0.07), SECOND)]


def cart(x: Floats, y: Floats, v: Floats) -> Layers:
    """A box on wheels, without a cabin."""
    w, top = span(v[0], 0.5, 0.9), span(v[1], -0.6, -0.1)
    load = hull(x, y, (-w, top), (w, top), (w * 0.8, 0.3), (-w * 0.8, 0.3))
    r = span(v[2], 0.2, 0.32)
    wheels = disc(np.abs(x), y, span(v[3], 0.3, 0.5), 0.5, r)
    pull = bar(x, y, w * 0.8, 0.2, 1.0, -0.2, 0.05)
    return [(pull, DARK), (load, BODY), (wheels, DARK), (wheels + r * 0.6, SECOND)]


def cactus(x: Floats, y: Floats, v: Floats) -> Layers:
    """A trunk with two bent arms and no crown."""
    a, b = span(v[0], -0.1, 0.3), span(v[1], -0.1, 0.3)
    arms = np.minimum(bar(x, y, -0.5, a, 0, a, 0.12), bar(x, y, 0.5, b, 0, b, 0.12))
    tips = np.minimum(
        bar(x, y, -0.5, a, -0.5, a - 0.4, 0.12), bar(x, y, 0.5, b, 0.5, b - 0.4, 0.12)
    )
    trunk = bar(x, y, 0, span(v[2], -0.8, -0.5), 0, 0.85, span(v[3], 0.14, 0.24))
    plant = np.minimum(trunk, np.minimum(arms, tips))
    return [(plant, BODY), (np.maximum(plant + 0.05, np.abs(x) - 0.03), SECOND)]


def arrow(x: Floats, y: Floats, v: Floats) -> Layers:
    """An arrow: a roof on a post."""
    w, neck = span(v[0], 0.5, 0.85), span(v[1], -0.2, 0.1)
    head = hull(x, y, (0.0, -0.85), (w, neck), (-w, neck))
    return [(np.minimum(head, box(x, y, 0, 0.4, span(v[2], 0.12, 0.28), 0.5)), BODY)]


def moon(x: Floats, y: Floats, v: Floats) -> Layers:
    """A crescent."""
    bite = disc(x, y, span(v[0], 0.3, 0.6), span(v[1], -0.3, 0.3), span(v[2], 0.6, 0.8))
    return [(np.maximum(disc(x, y, 0, 0, 0.85), -bite), BODY)]


def kite(x: Floats, y: Floats, v: Floats) -> Layers:
    """A diamond with a tail, similar to a sail without a boat."""
    w = span(v[0], 0.4, 0.65)
    sail = hull(x, y, (0.0, -0.9), (w, -0.3), (0.0, 0.5), (-w, -0.3))
    tail = np.abs(x - 0.15 * np.sin(9 * y)) - 0.05
    tail = np.maximum(tail, np.abs(y - 0.7) - 0.3)
    return [(tail, DARK), (sail, BODY), (np.maximum(sail, x), SECOND)]


def nothing(x: Floats, y: Floats, v: Floats) -> Layers:
    """The background alone."""
    return []


def stripes(x: Floats, y: Floats, v: Floats) -> Layers:
    """Straight or wavy stripes."""
    step, wave = span(v[0], 0.25, 0.9), span(v[1], -0.25, 0.25)
    across = np.mod(x + wave * np.sin(4 * y), step) - step / 2
    return [(np.abs(across) - step * span(v[2], 0.1, 0.35), BODY)]


def checkers(x: Floats, y: Floats, v: Floats) -> Layers:
    """A checkerboard."""
    step = span(v[0], 0.4, 1.2)
    fx = np.abs(np.mod(x, step) - step / 2) - step / 4
    fy = np.abs(np.mod(y, step) - step / 2) - step / 4
    return [(-np.sign(fx * fy) * np.minimum(np.abs(fx), np.abs(fy)), BODY)]


def dots(x: Floats, y: Floats, v: Floats) -> Layers:
    """A lattice of dots."""
    step = span(v[0], 0.3, 0.8)
    fx, fy = np.mod(x, step) - step / 2, np.mod(y, step) - step / 2
    return [(disc(fx, fy, 0, 0, step * span(v[1], 0.15, 0.4)), BODY)]


def rings(x: Floats, y: Floats, v: Floats) -> Layers:
    """Concentric rings."""
    step = span(v[0], 0.25, 0.7)
    ring = np.abs(np.mod(disc(x, y, 0, 0, 0), step) - step / 2)
    return [(ring - step * span(v[1], 0.1, 0.3), BODY)]


def writing(x: Floats, y: Floats, v: Floats) -> Layers:
    """Rows of marks that resemble text."""
    step = span(v[0], 0.35, 0.6)
    row = np.floor(y / step)
    inside = np.abs(y - (row + 0.5) * step) - step * 0.3
    word = np.sin(span(v[1], 3, 6) * x + 2.4 * row) + 0.7
    mark = np.sin(span(v[2], 14, 24) * x + 1.7 * row * row) + np.sin(9 * x - row)
    return [(np.maximum(inside, np.maximum(-word * 0.15, -mark * 0.06)), DARK)]


def glyph(x: Floats, y: Floats, v: Floats) -> Layers:
    """A symbol of three strokes and a ring, from no known alphabet."""
    at = [span(draw, -0.8, 0.8) for draw in v]
    strokes = np.minimum(
        bar(x, y, at[0], at[1], at[2], at[3], 0.1), bar(x, y, at[2], at[3], at[4], at[5], 0.1)
    )
    ring = np.abs(disc(x, y, at[6] * 0.5, at[7] * 0.5, span(v[8], 0.2, 0.5))) - 0.09
    last = bar(x, y, at[9], at[10], at[0], at[11], 0.09)
    return [(np.minimum(np.minimum(strokes, last), ring), BODY)]


def scraps(x: Floats, y: Floats, v: Floats) -> Layers:
    """Discs, boxes and bars that overlap."""
    at = [span(draw, -0.9, 0.9) for draw in v]
    return [
        (disc(x, y, at[0], at[1], span(v[2], 0.2, 0.6)), BODY),
        (box(x, y, at[3], at[4], span(v[5], 0.15, 0.5), span(v[6], 0.15, 0.5)), SECOND),
        (bar(x, y, at[7], at[8], at[9], at[10], span(v[11], 0.06, 0.2)), DARK),
        (oval(x, y, at[10], at[7], span(v[0], 0.15, 0.5), span(v[3], 0.15, 0.5)), LIGHT),
        (hull(x, y, (at[2], at[4] - 0.5), (at[2] + 0.5, at[4] + 0.4), (at[2] - 0.5, at[4])), BODY),
    ]


def _crowd(*members: Shape) -> Shape:
    """Return a shape that draws several small, overlapping things in one picture."""

    def crowd(x: Floats, y: Floats, v: Floats) -> Layers:
        layers: Layers = []
        turn = span(v[11], 0, 2 * np.pi)
        for number, member in enumerate(members):
            angle = turn + np.float32(2 * np.pi * number / len(members))
            zoom = span(v[number], 1.4, 2.2)
            near_x, near_y = x - 0.5 * np.cos(angle), y - 0.5 * np.sin(angle)
            drawn = member(near_x * zoom, near_y * zoom, np.roll(v, 3 * number, axis=0))
            layers += [(distance / zoom, (tone + number) % 4) for distance, tone in drawn]
        return layers

    return crowd


NEAR_MISSES: dict[str, Shape] = {
    shape.__name__: shape
    for shape in (
        shed, pile, leaf, flower, lollipop, bowl, lamp, cart, cactus, arrow, moon, kite,
    )
}  # fmt: skip
PATTERNS: dict[str, Shape] = {
    shape.__name__: shape
    for shape in (nothing, stripes, checkers, dots, rings, writing, glyph, scraps)
}
CROWDS: dict[str, Shape] = {
    "crowd-0": _crowd(CLASS_SHAPES["tree"], CLASS_SHAPES["fish"], moon),
    "crowd-1": _crowd(CLASS_SHAPES["cup"], leaf, CLASS_SHAPES["star"], bowl),
    "crowd-2": _crowd(shed, CLASS_SHAPES["car"], CLASS_SHAPES["mushroom"]),
    "crowd-3": _crowd(flower, kite, arrow, lollipop),
    "crowd-4": _crowd(scraps, CLASS_SHAPES["house"], CLASS_SHAPES["boat"]),
    "crowd-5": _crowd(CLASS_SHAPES["umbrella"], CLASS_SHAPES["key"], pile),
}
