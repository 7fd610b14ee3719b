"""A square window of a resized image, at less than the cost of resizing the whole of it.

H x W stored pixels, S the window's side.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

# torch resizes by Pillow's own weights, twice as fast, but from the upper left corner on: what lies
# there before the window is thrown away, and may be so many times the window.
TORCH = {"bilinear": "_upsample_bilinear2d_aa", "bicubic": "_upsample_bicubic2d_aa"}
MOST_WASTE = 4


def resize_window(
    pixels: Pixels,
    corner: tuple[int, int],
    side: int,
    steps: tuple[float, float],
    interpolation: str,
) -> Pixels:
    """uint8 [S, S, 3] of `pixels` [H, W, 3] resized: its upper left is at `corner` (top, left).

    `steps` are stored pixels for one of the resized image, down and across. As torchvision resizes
    and crops, antialiased, within a level or two of 256.
    """
    (top, left), (down, across) = corner, steps
    if interpolation in TORCH and (top + side) * (left + side) <= MOST_WASTE * side**2:
        import torch

        resize = getattr(torch.ops.aten, TORCH[interpolation])
        image_13HW = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)  # channels_last to torch
        # A side that came out as long as the stored one would be left as it is, whatever the step.
        ends = [c + side + (c + side == n) for c, n in zip(corner, pixels.shape, strict=False)]
        resized_3HW = resize(image_13HW, ends, False, 1 / down, 1 / across)[0]
        found = resized_3HW[:, top : top + side, left : left + side].permute(1, 2, 0)
        return np.ascontiguousarray(found.numpy())
    # Pillow resizes a box with the weights that the whole image would get, and reads the pixels
    # around the box: the result is that of resize and crop, also for a 1 x 5000 image.
    from PIL import Image

    height, width = pixels.shape[:2]
    right, bottom = (left + side) * across, (top + side) * down
    box = (left * across, top * down, min(right, width), min(bottom, height))
    how = Image.Resampling[interpolation.upper()]
    return np.array(Image.fromarray(pixels).resize((side, side), how, box=box))
