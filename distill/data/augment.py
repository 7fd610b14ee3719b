"""Views: view v of an image is a pure function of (seed, key, v), cut in batches on the device.

An image is stored as uint8 [R, R, 3] with R = `stored_side(S)`. Up to S = 64, a view is a random
S x S crop of the image, which is extended by reflection by S / 8 on each side. Above, it is a
random resized crop (35-100 % of the area, ratio 3/4 to 4/3). It is flipped at random. If color
jitter is on, brightness, contrast and saturation vary. B views, S side of a view, R side of the
stored image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from indexes import devices
from indexes.splitmix import Uint64, splitmix64

VERSION = 2  # of the views: cached targets of another version are refused
SMALL = 64
AREA = (0.35, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 4  # draws of a box until one fits the image, as in torchvision
JITTERS = 3 + 2 * TRIES  # index of the first random number for colors
LUMA = (0.299, 0.587, 0.114)  # shares of red, green and blue in gray: ITU-R BT.601

Boxes = npt.NDArray[np.float32]


def stored_side(size: int) -> int:
    """Return R in pixels: S itself up to 64, else round(8 S / 7), the usual 256 for 224.

    Example:
        >>> stored_side(32), stored_side(224)
        (32, 256)
    """
    return size if size <= SMALL else round(size * 8 / 7)


def uniforms(
    seed: int, key_hash: Uint64, view: npt.NDArray[np.int64], num: int, first: int = 0
) -> npt.NDArray[np.float64]:
    """Return random numbers [B, num] in [0, 1) for key hashes [B] and numbers of views [B].

    They depend only on the seed, the key hash and the number of the view. The stream of a view is
    read from index `first` on.
    """
    state = splitmix64(np.array([seed % 2**64], np.uint64))
    state = splitmix64(state ^ key_hash)
    state = splitmix64(state ^ view.astype(np.uint64))
    counters = np.arange(first, first + num, dtype=np.uint64)
    bits: Uint64 = splitmix64(np.add(state[:, None], counters, dtype=np.uint64)) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def draw_boxes(seed: int, key_hash: Uint64, view: npt.NDArray[np.int64], size: int) -> Boxes:
    """Return boxes [B, 5] float32: top, left, height, width in stored pixels, and flip 0 or 1."""
    if size <= SMALL:
        margin = size // 8
        random = uniforms(seed, key_hash, view, 3)
        corner = np.floor(random[:, :2] * (2 * margin + 1)) - margin
        sides = np.full_like(corner, size)
    else:
        stored = stored_side(size)
        random = uniforms(seed, key_hash, view, 3 + 2 * TRIES)
        sides = _fitting_sides(random[:, 3:]) * stored
        corner = random[:, :2] * (stored - sides)
    flip = random[:, 2:3] < 0.5
    return np.concatenate([corner, sides, flip], 1).astype(np.float32)


def _fitting_sides(random: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (height, width) [B, 2] in 0-1: the first of TRIES draws that fits, else (1, 1)."""
    area = AREA[0] + (AREA[1] - AREA[0]) * random[:, :TRIES]
    low, high = np.log(RATIO)
    ratio = np.exp(low + (high - low) * random[:, TRIES:])
    sides = np.stack([np.sqrt(area / ratio), np.sqrt(area * ratio)], -1)
    fits = np.less_equal(sides, 1).all(-1)
    first = sides[np.arange(len(sides)), fits.argmax(1)]
    return np.where(np.any(fits, axis=1, keepdims=True), first, 1.0)


def draw_jitter(
    seed: int, key_hash: Uint64, view: npt.NDArray[np.int64], strength: float
) -> npt.NDArray[np.float32]:
    """Return factors [B, 3] of brightness, contrast and saturation, uniform in 1 +- strength."""
    random = uniforms(seed, key_hash, view, 3, JITTERS)
    return (1 + strength * (2 * random - 1)).astype(np.float32)


def apply_jitter(pixels_B3SS: Tensor, factors: npt.NDArray[np.float32]) -> Tensor:
    """Scale brightness, contrast and saturation of pixels [B, 3, S, S] by factors [B, 3].

    They are applied in this order, and pixels are clamped to [0, 1] after each, as in torchvision's
    ColorJitter.
    """
    brightness, contrast, saturation = devices.send(factors, pixels_B3SS.device)[
        :, :, None, None, None
    ].unbind(1)
    pixels = (pixels_B3SS * brightness).clamp_(0, 1)
    gray = _gray(pixels).mean((2, 3), keepdim=True)
    pixels = torch.lerp(gray, pixels, contrast).clamp_(0, 1)
    return torch.lerp(_gray(pixels), pixels, saturation).clamp_(0, 1)


def _gray(pixels_B3SS: Tensor) -> Tensor:
    red, green, blue = (LUMA[c] * pixels_B3SS[:, c : c + 1] for c in range(3))
    return red + green + blue


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """All that views depend on, besides the image and the number of the view."""

    size: int
    """S, the side of a view in pixels."""
    seed: int
    color_jitter: float = 0.0
    """Largest relative change of brightness, contrast and saturation, in 0-1."""

    def __call__(
        self, images_BRR3: Tensor, key_hash: Uint64, view: npt.NDArray[np.int64]
    ) -> Tensor:
        """Return the views [B, 3, S, S] with these numbers [B] of stored images [B, R, R, 3]."""
        boxes = draw_boxes(self.seed, key_hash, view, self.size)
        pixels = crop_views(images_BRR3, boxes, self.size)
        if self.color_jitter:
            pixels = apply_jitter(pixels, draw_jitter(self.seed, key_hash, view, self.color_jitter))
        return pixels.contiguous(memory_format=torch.channels_last)


def center_view(count: int, size: int) -> Boxes:
    """Return `count` boxes [B, 5] of the center crop, without a flip.

    Example:
        >>> center_view(1, 32).tolist()
        [[0.0, 0.0, 32.0, 32.0, 0.0]]
    """
    corner = (stored_side(size) - size) // 2
    return np.tile(np.array([corner, corner, size, size, 0], np.float32), (count, 1))


def crop_views(images_BRR3: Tensor, boxes: Boxes, size: int) -> Tensor:
    """Cut boxes [B, 5] from stored images uint8 [B, R, R, 3]: float32 [B, 3, S, S] in [0, 1].

    The result is on the device of the images, in channels_last, and does not depend on the other
    images of the batch. Raises ValueError if the images are not [B, R, R, 3] with one box each.
    """
    side = stored_side(size)
    if images_BRR3.shape[1:] != (side, side, 3) or len(boxes) != len(images_BRR3):
        raise ValueError(
            f"views of {size} pixels need images [{len(boxes)}, {side}, {side}, 3], not "
            f"{list(images_BRR3.shape)}"
        )
    boxes_B5 = devices.send(boxes, images_BRR3.device)
    is_aligned = (boxes[:, 2:4] == size).all() and (boxes[:, :2] % 1 == 0).all()
    cut = _gather if is_aligned else _sample
    pixels = cut(images_BRR3, boxes_B5, size)
    return pixels.contiguous(memory_format=torch.channels_last)


def _gather(images_BRR3: Tensor, boxes_B5: Tensor, size: int) -> Tensor:
    num, side = images_BRR3.shape[:2]
    top, left, flip = (boxes_B5[:, column, None].long() for column in (0, 1, 4))
    steps = torch.arange(size, device=images_BRR3.device)
    rows = _reflect(top + steps, side)
    columns = _reflect(left + torch.where(flip > 0, size - 1 - steps, steps), side)
    images = torch.arange(num, device=images_BRR3.device)
    index = (images[:, None, None] * side + rows[:, :, None]) * side + columns[:, None, :]
    pixels = images_BRR3.reshape(-1, 3).index_select(0, index.reshape(-1))
    return pixels.view(num, size, size, 3).permute(0, 3, 1, 2).float().div_(255)


def _reflect(position: Tensor, side: int) -> Tensor:
    """Mirror positions outside 0..side-1 inward, without repeating the edge."""
    position = position.abs()
    return torch.where(position < side, position, 2 * (side - 1) - position)


def _sample(images_BRR3: Tensor, boxes_B5: Tensor, size: int) -> Tensor:
    """Sample bilinearly. A box is at most 8/7 of the view, so antialiasing is not needed."""
    side = images_BRR3.shape[1]
    top, left, height, width, flip = boxes_B5[:, :, None].unbind(1)
    # Not affine_grid: the rounding of its matrix product may depend on the batch size.
    steps = (torch.arange(size, device=images_BRR3.device) + 0.5) / size
    y = (top + steps * height) * (2 / side) - 1
    x = (left + torch.where(flip > 0, 1 - steps, steps) * width) * (2 / side) - 1
    num = len(images_BRR3)
    grid = torch.stack(
        [x[:, None, :].expand(num, size, size), y[:, :, None].expand(num, size, size)], -1
    )
    pixels = images_BRR3.permute(0, 3, 1, 2).float().contiguous()
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False).div_(255)
