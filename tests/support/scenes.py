"""Synthetic scenes of any size, and the edits that are typical of copies on the web."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance


def scene(seed: int, side: int = 64) -> Image.Image:
    """Draw overlapping shapes on a graded, grainy background; every seed gives a new scene."""
    draw = np.random.default_rng(seed)
    large = 2 * side
    ground = draw.integers(0, 256, (3, 3, 3)).astype(np.uint8)
    image = Image.fromarray(ground).resize((large, large), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(14):
        x, y, w, h = draw.random(4) * large * [1, 1, 0.5, 0.5]
        color = tuple(draw.integers(0, 256, 3).tolist())
        box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        (pen.ellipse if draw.random() < 0.5 else pen.rectangle)(box, fill=color)
    small = np.asarray(image.resize((side, side), Image.Resampling.BOX)).astype(float)
    return Image.fromarray((small + draw.normal(0, 6, small.shape)).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, quality: int = 85) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def scaled(image: Image.Image, frac: float) -> Image.Image:
    width, height = (max(1, round(side * frac)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def cropped(image: Image.Image, frac: float, seed: int = 0) -> Image.Image:
    """Cut `frac` off the width and the height, at one end or at both ends."""
    draw = np.random.default_rng(seed)
    width, height = image.size
    cut_x, cut_y = round(width * frac), round(height * frac)
    left, top = draw.integers(0, cut_x + 1), draw.integers(0, cut_y + 1)
    return image.crop((left, top, left + width - cut_x, top + height - cut_y))


def mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def copy_of(image: Image.Image, kind: str, seed: int) -> bytes:
    """Encode a copy of `image`, edited as `kind` says."""
    draw = np.random.default_rng(seed)
    if kind == "reencode":
        return encoded(image, int(draw.integers(40, 96)))
    if kind == "resize":
        return encoded(scaled(image, draw.uniform(0.5, 2)))
    if kind == "crop":
        return encoded(cropped(image, draw.uniform(0.03, 0.1), seed))
    if kind == "flip":
        return encoded(mirrored(image))
    if kind == "color":
        bright = ImageEnhance.Brightness(image).enhance(draw.uniform(0.85, 1.15))
        return encoded(ImageEnhance.Color(bright).enhance(draw.uniform(0.75, 1.25)))
    assert kind == "all"
    return encoded(scaled(mirrored(cropped(image, 0.06, seed)), draw.uniform(0.6, 1.5)), 60)


KINDS = ("reencode", "resize", "crop", "flip", "color", "all")
