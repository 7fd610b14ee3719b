"""Thumbs: a whole image squashed to 600 bytes, enough to tell one picture from another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
SIDE = 20
WIDTH = SIDE * SIDE + 2 * (SIDE // 2) ** 2


def thumb(pixels: Pixels) -> Pixels:
    """uint8 [WIDTH] of RGB pixels [H, W, 3]: luma [SIDE, SIDE], then Cb and Cr at half the side.

    The aspect ratio is given up, nothing is cut off. 20 pixels a side are OURS, by measurement:
    16 lets half as many false pairs again pass, 24 is hardly better.
    """
    from PIL import Image

    small = Image.fromarray(pixels).resize(
        (SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0
    )
    luma, *chroma = small.convert("YCbCr").split()
    half = (SIDE // 2, SIDE // 2)
    planes = [luma, *(plane.resize(half, Image.Resampling.BOX) for plane in chroma)]
    return np.concatenate([np.asarray(plane).ravel() for plane in planes])


def planes(thumbs: Pixels) -> tuple[Pixels, Pixels]:
    """Luma uint8 [n, S, S] and chroma uint8 [n, 2, S / 2, S / 2] of thumbs [n, WIDTH]."""
    half = SIDE // 2
    luma, chroma = thumbs[:, : SIDE * SIDE], thumbs[:, SIDE * SIDE :]
    return luma.reshape(-1, SIDE, SIDE), chroma.reshape(-1, 2, half, half)
