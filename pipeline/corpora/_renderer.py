"""The renderer of the demo images: a thing, a look and a row of uniform draws give 32 x 32 pixels.

All operations are elementwise over [n, 32, 32] float32. The pixels of an image therefore depend on
its own thing, look and draws alone, and not on the other images of the same call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.corpora._misfits import CROWDS, NEAR_MISSES, PATTERNS
from pipeline.corpora._shapes import CLASS_SHAPES, VARIATIONS, Floats, Layers, disc

SIDE = 32
THINGS = {**CLASS_SHAPES, **NEAR_MISSES, **CROWDS, **PATTERNS}
# The typical hue of a thing, 0.5 if not listed. The look gives the range around it.
HUES = {
    "boat": 0.6, "car": 0.0, "cup": 0.55, "fish": 0.08, "house": 0.05, "key": 0.13,
    "mushroom": 0.02, "star": 0.14, "tree": 0.3, "umbrella": 0.8, "shed": 0.06, "leaf": 0.3,
    "flower": 0.9, "cactus": 0.33, "moon": 0.14, "lamp": 0.12,
}  # fmt: skip

Span: TypeAlias = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """A rendering style: each field is a range from which every image draws its own value.

    The defaults are the style of the lost original: softly shaded things in earthy colors on a
    cloudy background. Lengths are in half image widths, except `line` and `blur`, which are in
    pixels.
    """

    turn: Span = (-0.5, 0.5)  # radians
    size: Span = (0.55, 0.95)
    shift: Span = (0.0, 0.3)
    stretch: Span = (-0.22, 0.22)  # log of the aspect ratio
    warp: Span = (0.0, 0.13)
    hue: Span = (-0.25, 0.25)
    saturation: Span = (0.2, 0.6)
    value: Span = (0.4, 0.85)
    second_hue: Span = (0.08, 0.4)
    dark: Span = (0.12, 0.35)
    light: Span = (0.7, 0.95)
    unify: Span = (0.0, 0.0)  # at 1 every tone of the thing equals its first tone
    ground_hue: Span = (0.06, 0.6)
    ground_saturation: Span = (0.1, 0.45)
    ground_value: Span = (0.3, 0.8)
    ground_depth: Span = (-0.45, 0.45)  # difference of value within the background
    horizon: Span = (0.0, 0.8)
    clouds: Span = (0.3, 1.0)
    weave: Span = (0.0, 0.0)  # stripes in the background
    shade: Span = (0.5, 1.0)
    shadow: Span = (0.2, 0.5)
    line: Span = (-1.0, -1.0)  # width of the outline; no outline if negative
    grain: Span = (0.0, 0.2)  # cloudiness within the thing
    cover: Span = (-1.0, 0.45)  # radius of a blob in front of the thing; no blob if negative
    blur: Span = (0.0, 0.6)
    noise: Span = (0.01, 0.04)
    contrast: Span = (0.7, 1.05)
    bright: Span = (-0.1, 0.1)
    negative: Span = (0.0, 0.0)


FREE: dict[str, Span] = {"hue": (-0.5, 0.5), "ground_hue": (0.0, 1.0), "second_hue": (0.0, 1.0)}
FLAT: dict[str, Span] = {
    "shade": (0, 0), "shadow": (0, 0), "grain": (0, 0), "cover": (-1, -1), "clouds": (0, 0),
    "horizon": (0, 0), "noise": (0, 0.01), "blur": (0, 0), "contrast": (0.9, 1.1),
}  # fmt: skip
LOOKS: dict[str, Look] = {
    "lost": Look(),
    "near": Look(
        turn=(-1.0, 1.0), size=(0.4, 1.05), shift=(0.0, 0.4), saturation=(0.1, 0.8),
        value=(0.3, 1.0), hue=(-0.4, 0.4), ground_hue=(0.0, 0.8), ground_saturation=(0.0, 0.6),
        shade=(0.2, 1.0), shadow=(0.0, 0.5), line=(-1.0, 0.5), contrast=(0.6, 1.2),
    ),
    "icon": Look(**{
        **FLAT, **FREE, "saturation": (0.6, 1), "value": (0.6, 1), "warp": (0, 0),
        "ground_saturation": (0, 0.6), "ground_value": (0.6, 1), "ground_depth": (0, 0),
    }),
    "sketch": Look(**{
        **FLAT, "saturation": (0, 0.1), "value": (0.88, 1), "unify": (1, 1), "line": (0.8, 2.0),
        "ground_saturation": (0, 0.1), "ground_value": (0.85, 1), "ground_depth": (0, 0),
    }),
    "silhouette": Look(**{
        **FLAT, **FREE, "value": (0, 0.2), "unify": (1, 1), "ground_value": (0.5, 1),
        "horizon": (0, 1),
    }),
    "negative": Look(**FREE, saturation=(0.4, 1), negative=(1, 1), contrast=(0.8, 1.2)),
    "woven": Look(
        **FREE, saturation=(0.2, 1), grain=(0.4, 1.0), weave=(0.4, 1), warp=(0.05, 0.18),
        ground_depth=(-0.6, 0.6), noise=(0.02, 0.06),
    ),
    "astray": Look(
        turn=(-3.1, 3.1), size=(0.25, 1.5), shift=(0.3, 0.9), stretch=(-0.5, 0.5),
        saturation=(0.1, 0.9), hue=(-0.5, 0.5),
    ),
    "blurred": Look(hue=(-0.5, 0.5), blur=(1.2, 2.6), contrast=(0.5, 0.9)),
    "noisy": Look(**FREE, saturation=(0.1, 0.9), noise=(0.06, 0.16), bright=(-0.2, 0.2)),
}  # fmt: skip

FIELDS = tuple(field.name for field in dataclasses.fields(Look))
# One row of draws: one per field of Look, the shape's variations, five for the scene, three for
# noise.
EXTRA = 8
DRAWS = len(FIELDS) + VARIATIONS + EXTRA

_GRAIN = 1 << 16
_COARSE = (4, 8)


@cache
def _ranges() -> Floats:
    rows = [[getattr(look, name) for name in FIELDS] for look in LOOKS.values()]
    return np.array(rows, np.float32)


@cache
def _grain() -> Floats:
    """White noise; every image uses a window of it."""
    bank = np.random.Generator(np.random.Philox(20)).standard_normal(_GRAIN, np.float32)
    return np.concatenate([bank, bank[: 4 * SIDE * SIDE]])


@cache
def _smoother(cells: int) -> Floats:
    """The matrix [32, cells + 1] that interpolates a coarse row smoothly to pixels."""
    at = (np.arange(SIDE) + 0.5) / SIDE * cells
    left = np.floor(at)
    t = at - left
    t = t * t * (3 - 2 * t)
    matrix = np.zeros((SIDE, cells + 1), np.float32)
    rows = np.arange(SIDE)
    matrix[rows, left.astype(int)] = 1 - t
    matrix[rows, left.astype(int) + 1] = t
    return matrix


def _window(start: Floats, size: int) -> Floats:
    """Windows [n, size] of the noise bank at uniform draws [n]."""
    first = (start * _GRAIN).astype(np.int64)
    window: Floats = _grain()[first[:, None] + np.arange(size)]
    return window


def _clouds(start: Floats, cells: int) -> Floats:
    """Smooth noise [n, 32, 32] of about unit variance."""
    coarse = _window(start, (cells + 1) ** 2).reshape(-1, cells + 1, cells + 1)
    matrix = _smoother(cells)
    # Summed cell by cell, because the rounding of a matrix product may depend on the batch size.
    rows: Any = sum(matrix[:, i, None] * coarse[:, None, i, :] for i in range(cells + 1))
    result: Floats = sum(rows[:, :, i, None] * matrix[:, i] for i in range(cells + 1)) * 1.4
    return result


def _rgb(hue: Floats, saturation: Floats, value: Floats) -> Floats:
    """Convert hue, saturation and value [n, 1, 1] to RGB [3, n, 1, 1]."""
    sector = np.array([5.0, 3.0, 1.0], np.float32)[:, None, None, None]
    k = np.mod(sector + hue * 6, 6)
    rgb: Floats = value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1)
    return rgb


def _palette(hue: float, knob: dict[str, Floats]) -> tuple[list[Floats], Floats, Floats]:
    """The tones of the thing and the two colors of the background, [3, n, 1, 1] each."""
    body_hue, saturation, value = hue + knob["hue"], knob["saturation"], knob["value"]
    second = np.where(value > 0.62, value - 0.25, value + 0.25)
    tones = [
        _rgb(body_hue, saturation, value),
        _rgb(body_hue + knob["second_hue"], saturation, second),
        _rgb(body_hue, saturation * 0.7, knob["dark"]),
        _rgb(body_hue + 0.1, saturation * 0.25, knob["light"]),
    ]
    tones = [tone + (tones[0] - tone) * knob["unify"] for tone in tones]
    level, depth = knob["ground_value"], knob["ground_depth"]
    first = _rgb(knob["ground_hue"], knob["ground_saturation"], level)
    other = _rgb(knob["ground_hue"] + depth * 0.3, knob["ground_saturation"], level + depth)
    return tones, first, other


def _soften(image: Floats, radius: Floats) -> Floats:
    """Blur images [3, n, 32, 32] by two passes with taps (r/4, 1 - r/2, r/4) for r up to 2."""
    for _ in range(2):
        for axis in (2, 3):
            pad = [(0, 0)] * 4
            pad[axis] = (1, 1)
            wide = np.pad(image, pad, mode="edge")
            before, after = [slice(None)] * 4, [slice(None)] * 4
            before[axis], after[axis] = slice(0, SIDE), slice(2, SIDE + 2)
            sides = (wide[tuple(before)] + wide[tuple(after)]) * 0.5
            image = image + (sides - image) * np.minimum(radius / 2, 0.67)
    return image


def _fill(canvas: Floats, layers: Layers, tones: Sequence[Floats], pixels: Floats,
          line: Floats, ink: Floats) -> Floats:  # fmt: skip
    """Draw the layers onto the canvas and return the distance to their union."""
    union = np.full(canvas.shape[1:], 9, np.float32)
    drawn = line > 0
    for distance, tone in layers:
        union = np.minimum(union, distance)
        cover = np.clip(0.5 - distance * pixels, 0, 1)
        canvas += cover * (tones[tone] - canvas)
        if drawn.any():
            edge = np.clip(0.5 + line * 0.5 - np.abs(distance * pixels), 0, 1) * drawn
            canvas += edge * (ink - canvas)
    return union


def render(things: Sequence[str], looks: Sequence[str], draws: Floats) -> npt.NDArray[np.uint8]:
    """Render images uint8 [n, 32, 32, 3] from draws [n, DRAWS], uniform in [0, 1).

    Image i depends on (things[i], looks[i], draws[i]) alone.
    """
    names, rows_of = np.unique(np.asarray(things), return_inverse=True)
    order = list(LOOKS)
    look = np.array([order.index(name) for name in looks], np.int64)
    result = np.empty((len(look), SIDE, SIDE, 3), np.uint8)
    for number, name in enumerate(names):
        rows = np.flatnonzero(rows_of == number)
        result[rows] = _render_thing(str(name), look[rows], draws[rows])
    return result


def _render_thing(thing: str, look: npt.NDArray[np.int64], draws: Floats) -> Floats:
    ranges = _ranges()[look]
    drawn = ranges[..., 0] + (ranges[..., 1] - ranges[..., 0]) * draws[:, : len(FIELDS)]
    knob = {name: drawn[:, i, None, None] for i, name in enumerate(FIELDS)}
    rest = draws[:, len(FIELDS) :].T[:, :, None, None]
    v, extra, starts = rest[:VARIATIONS], rest[VARIATIONS:], rest[-3:, :, 0, 0]
    soft, fine = (_clouds(start, cells) for start, cells in zip(starts, _COARSE, strict=False))

    axis = (np.arange(SIDE, dtype=np.float32) + 0.5) / (SIDE / 2) - 1
    across, down = axis[None, None, :], axis[None, :, None]
    bearing = np.float32(2 * np.pi) * extra[0]
    dx = across - knob["shift"] * np.cos(bearing)
    dy = down - knob["shift"] * np.sin(bearing)
    cos, sin = np.cos(knob["turn"]) / knob["size"], np.sin(knob["turn"]) / knob["size"]
    wide = np.exp(knob["stretch"])
    mirror = np.where(extra[1] < 0.5, np.float32(-1), np.float32(1))
    x = mirror * (cos * dx + sin * dy) * wide + knob["warp"] * soft
    y = (cos * dy - sin * dx) / wide + knob["warp"] * fine * 0.5

    tones, first, other = _palette(HUES.get(thing, 0.5), knob)
    sky = np.clip((down - (extra[2] - 0.5)) * 4, -1, 1)
    weave = np.sin((across * np.cos(bearing) + down * np.sin(bearing)) * (8 + 16 * extra[3]))
    weave *= knob["weave"]
    t = 0.5 + 0.5 * (knob["horizon"] * sky + knob["clouds"] * (soft + fine) * 0.5 + weave)
    canvas = first + (other - first) * np.clip(t, 0, 1)

    pixels = knob["size"] * (SIDE / 2)
    union = _fill(canvas, THINGS[thing](x, y, v), tones, pixels, knob["line"], tones[2] * 0.4)
    inside = np.clip(0.5 - union * pixels, 0, 1)
    deep = np.clip(-union * 2.5, 0, 1)
    light = knob["shade"] * (0.45 * deep - 0.25 - 0.3 * (dx + dy) / knob["size"])
    canvas *= 1 + inside * (light + knob["grain"] * (fine + weave) * 0.5)
    canvas *= 1 - knob["shadow"] * np.roll(inside, (2, 2), axis=(1, 2)) * (1 - inside)

    turn = np.float32(2 * np.pi) * extra[4]
    reach = knob["shift"] + 0.55
    blob = disc(across, down, reach * np.cos(turn), reach * np.sin(turn), knob["cover"])
    hidden = np.clip(0.5 - (blob + soft * 0.08) * (SIDE / 2), 0, 1) * (knob["cover"] > 0)
    canvas += hidden * ((first * 0.8 + tones[1] * 0.2) - canvas)
    return _develop(canvas, knob, starts[2])


def _develop(canvas: Floats, knob: dict[str, Floats], start: Floats) -> Floats:
    """Apply blur, contrast, noise and perhaps inversion; return uint8 [n, 32, 32, 3]."""
    if (knob["blur"] > 0).any():
        canvas = _soften(canvas, knob["blur"])
    canvas = 0.5 + (canvas - 0.5) * knob["contrast"] + knob["bright"]
    noise = _window(start, 3 * SIDE * SIDE).reshape(-1, 3, SIDE, SIDE)
    canvas += knob["noise"] * noise.transpose(1, 0, 2, 3)
    canvas = np.where(knob["negative"] > 0.5, 1 - canvas, canvas)
    return (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 3, 0)
