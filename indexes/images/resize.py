"""Compute a square window of a resized image, which costs less than resizing the whole image.

torch resizes with the same weights as Pillow, twice as fast, but only through private operators:
the public ones derive the step from whole sides, whereas a window needs an explicit step. Where
these operators are missing, Pillow does all the work. The results differ by one or two levels of
256.

H, W are the sides of the stored pixels and S is the side of the window.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Pixels = npt.NDArray[np.uint8]

OPERATORS = {"bilinear": "_upsample_bilinear2d_aa", "bicubic": "_upsample_bicubic2d_aa"}
# torch resizes from the upper left corner. Pixels before the window are computed and discarded;
# beyond this multiple of the window's area, Pillow is used.
MOST_WASTE = 4


def resize_window(
    pixels: Pixels,
    corner: tuple[int, int],
    side: int,
    steps: tuple[float, float],
    interpolation: str,
) -> Pixels:
    """Resize `pixels` [H, W, 3] and return the window uint8 [S, S, 3] at `corner` (top, left).

    `steps` (down, across) is the number of stored pixels per pixel of the resized image. The result
    is antialiased and equals torchvision's resize and crop to within one or two levels of 256.
    """
    top, left = corner
    if (top + side) * (left + side) <= MOST_WASTE * side**2:
        operator = _operator(interpolation)
        if operator is not None:
            return _resize_by_torch(operator, pixels, corner, side, steps)
    return _resize_by_pillow(pixels, corner, side, steps, interpolation)


@functools.cache
def _operator(interpolation: str) -> Callable[..., Tensor] | None:
    """torch's private operator, or None if this version of torch does not take these arguments."""
    import torch

    try:
        operator: Callable[..., Tensor] = getattr(torch.ops.aten, OPERATORS[interpolation])
        image_1443 = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
        operator(image_1443.permute(0, 3, 1, 2), [2, 2], False, 0.5, 0.5)
    except (KeyError, AttributeError, RuntimeError, TypeError):
        return None
    return operator


def _resize_by_torch(
    operator: Callable[..., Tensor],
    pixels: Pixels,
    corner: tuple[int, int],
    side: int,
    steps: tuple[float, float],
) -> Pixels:
    import torch

    (top, left), (down, across) = corner, steps
    image_13HW = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)  # channels_last to torch
    # torch does not resize a side whose new length equals the stored one, whatever the step.
    ends = [c + side + (c + side == n) for c, n in zip(corner, pixels.shape, strict=False)]
    resized_3HW = operator(image_13HW, ends, False, 1 / down, 1 / across)[0]
    window = resized_3HW[:, top : top + side, left : left + side].permute(1, 2, 0)
    return np.ascontiguousarray(window.numpy())


def _resize_by_pillow(
    pixels: Pixels,
    corner: tuple[int, int],
    side: int,
    steps: tuple[float, float],
    interpolation: str,
) -> Pixels:
    """Resize a box with the weights of the whole image; pixels around the box also contribute.

    The result equals resize and crop, even for a 1 x 5000 image.
    """
    from PIL import Image

    (top, left), (down, across) = corner, steps
    height, width = pixels.shape[:2]
    right, bottom = (left + side) * across, (top + side) * down
    box = (left * across, top * down, min(right, width), min(bottom, height))
    resampling = Image.Resampling[interpolation.upper()]
    return np.array(Image.fromarray(pixels).resize((side, side), resampling, box=box))
