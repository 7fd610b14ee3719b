"""Views: view v of an image is a pure function of (seed, key, v), cut in batches on the device.

An image is stored as uint8 [R, R, 3] with R = `stored_side(S)`. By default, up to S = 64, a view is
a random S x S crop of the image, which is extended by reflection (`pad`) by S / 8 on each side;
`zeros` extends it by zeros. Above, and with `resized`, a view is a random resized crop (35-100 % of
the area, ratio 3/4 to 4/3). It is flipped at random. If color jitter is on, brightness, contrast
and saturation vary. B views, S side of a view, R side of the stored image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.recipe import CROP_AREA, Crop
from indexes import devices
from indexes.splitmix import Uint64, splitmix64

VERSION = 2  # of the views: cached targets of another version are refused
SMALL = 64
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


def resolve_crop(crop: Crop | None, size: int) -> Crop:
    """Return the crop of views of `size` pixels; None is pad up to 64 pixels, and resized above.

    Raises ValueError if a crop of a padded image is wanted above 64 pixels.

    Example:
        >>> resolve_crop(None, 32), resolve_crop(None, 224), resolve_crop("resized", 32)
        ('pad', 'resized', 'resized')
    """
    if crop is None:
        return "pad" if size <= SMALL else "resized"
    if crop != "resized" and size > SMALL:
        raise ValueError(
            f"crop={crop} is for views of at most {SMALL} pixels, not {size}: choose crop=resized"
        )
    return crop


def draw_boxes(
    seed: int,
    key_hash: Uint64,
    view: npt.NDArray[np.int64],
    size: int,
    crop: Crop | None = None,
    crop_area: float = CROP_AREA,
) -> Boxes:
    """Return boxes [B, 5] float32: top, left, height, width in stored pixels, and flip 0 or 1.

    Resized boxes lie within the image, and have at least the share `crop_area` of its area. Raises
    ValueError as `resolve_crop` does.
    """
    if resolve_crop(crop, size) != "resized":
        margin = size // 8
        random = uniforms(seed, key_hash, view, 3)
        corner = np.floor(random[:, :2] * (2 * margin + 1)) - margin
        sides = np.full_like(corner, size)
    else:
        stored = stored_side(size)
        random = uniforms(seed, key_hash, view, 3 + 2 * TRIES)
        sides = _fitting_sides(random[:, 3:], crop_area) * stored
        corner = random[:, :2] * (stored - sides)
    flip = random[:, 2:3] < 0.5
    return np.concatenate([corner, sides, flip], 1).astype(np.float32)


def _fitting_sides(random: npt.NDArray[np.float64], lowest: float) -> npt.NDArray[np.float64]:
    """Return (height, width) [B, 2] in 0-1: the first of TRIES draws that fits, else (1, 1)."""
    area = lowest + (1.0 - lowest) * random[:, :TRIES]
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
    crop: Crop | None = None
    """pad, zeros or resized; None is pad up to 64 pixels, and resized above."""
    crop_area: float = CROP_AREA
    """Lowest share of the image's area in a resized crop, in 0-1."""

    def __post_init__(self) -> None:
        resolve_crop(self.crop, self.size)

    def __call__(
        self, images_BRR3: Tensor, key_hash: Uint64, view: npt.NDArray[np.int64]
    ) -> Tensor:
        """Return the views [B, 3, S, S] with these numbers [B] of stored images [B, R, R, 3]."""
        crop = resolve_crop(self.crop, self.size)
        boxes = draw_boxes(self.seed, key_hash, view, self.size, crop, self.crop_area)
        pixels = crop_views(images_BRR3, boxes, self.size, crop)
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


def crop_views(images_BRR3: Tensor, boxes: Boxes, size: int, crop: Crop) -> Tensor:
    """Cut boxes [B, 5] from stored images uint8 [B, R, R, 3]: float32 [B, 3, S, S] in [0, 1].

    Boxes of the crops pad and zeros are S x S, with whole numbers as corners; those of resized are
    sampled bilinearly. The result is on the device of the images, in channels_last, and does not
    depend on the other images of the batch. Raises ValueError if the images are not [B, R, R, 3]
    with one box each.
    """
    side = stored_side(size)
    if images_BRR3.shape[1:] != (side, side, 3) or len(boxes) != len(images_BRR3):
        raise ValueError(
            f"views of {size} pixels need images [{len(boxes)}, {side}, {side}, 3], not "
            f"{list(images_BRR3.shape)}"
        )
    boxes_B5 = devices.send(boxes, images_BRR3.device)
    if crop == "resized":
        pixels = _sample(images_BRR3, boxes_B5, size)
    else:
        pixels = _gather(images_BRR3, boxes_B5, size, with_zeros=crop == "zeros")
    return pixels.contiguous(memory_format=torch.channels_last)


def _gather(images_BRR3: Tensor, boxes_B5: Tensor, size: int, *, with_zeros: bool) -> Tensor:
    num, side = images_BRR3.shape[:2]
    top, left, flip = (boxes_B5[:, column, None].long() for column in (0, 1, 4))
    steps = torch.arange(size, device=images_BRR3.device)
    rows = top + steps
    columns = left + torch.where(flip > 0, size - 1 - steps, steps)
    near_rows, near_columns = _reflect(rows, side), _reflect(columns, side)
    images = torch.arange(num, device=images_BRR3.device)
    index = (images[:, None, None] * side + near_rows[:, :, None]) * side + near_columns[:, None, :]
    pixels = images_BRR3.reshape(-1, 3).index_select(0, index.reshape(-1))
    pixels = pixels.view(num, size, size, 3)
    if with_zeros:
        inside = (near_rows == rows)[:, :, None] & (near_columns == columns)[:, None, :]
        pixels.mul_(inside[..., None])
    return pixels.permute(0, 3, 1, 2).float().div_(255)


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
