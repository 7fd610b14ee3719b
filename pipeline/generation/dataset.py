"""The training data of a generator: the pixels of a shard set and the teacher's view of them.

N images, P the side of a synthetic image, D_T the width of the teacher's features, C classes. The
images are unlabeled and have equal weight. The class of an image is the one that the teacher
predicted when the shards were written. HiDFD is criticized for relying on predicted classes, but
unlabeled images have no others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from indexes import devices
from indexes.command.progress import Progress
from indexes.images.decode import BadImage, Geometry, load_view, to_unit
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards

BLOCK = 128  # images per forward pass, constant so that the features are reproducible


@dataclass(frozen=True)
class TrainingImages:
    """The images of a shard set on one device.

    `pixels` are uint8 [N, P, P, 3]. `features` [2, N, D_T] are those of each image and of its
    mirror image. `labels` [N] are the teacher's predicted classes.
    """

    pixels: Tensor
    features: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def view(self, rows_B: Tensor, mirrored_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return images [B, 3, P, P] in [-1, 1], their features [B, D_T] and labels [B].

        rows_B: row numbers [B]. mirrored_B: 0 or 1 for each row, 1 for its mirror image.
        """
        pixels = to_unit(self.pixels[rows_B])
        pixels = torch.where(mirrored_B[:, None, None, None] > 0, pixels.flip(3), pixels)
        return pixels * 2 - 1, self.features[mirrored_B, rows_B], self.labels[rows_B]


def read_images(shards: Shards, teacher: Teacher, side: int, device: str) -> TrainingImages:
    """Decode all images of a shard set and compute their features.

    Memory: N (3 P^2 + 8 D_T) bytes. Raises ArtifactError for shards of another teacher, and
    ValueError for a damaged image.
    """
    shards.check_teacher(teacher.card.digest)
    geometry = Geometry(side, 1.0, teacher.card.interpolation)
    pixels = np.empty((len(shards), side, side, 3), np.uint8)
    with Progress("decode", len(shards)) as progress:
        for row in range(len(shards)):
            try:
                pixels[row] = load_view(shards.read(row), geometry)[0]
            except BadImage as error:
                raise ValueError(
                    f"{shards.directory}: {shards.keys[row]} cannot be decoded ({error.reason}): "
                    "the shards are damaged; check them with `winnow verify`"
                ) from error
            progress.add(1)
    whole = torch.from_numpy(pixels).to(device)
    features = torch.stack([_features(whole, teacher, mirrored=flip) for flip in (False, True)])
    labels = torch.from_numpy(shards.columns["label"].astype(np.int64)).to(device)
    return TrainingImages(whole, features, labels)


def _features(pixels_NPP3: Tensor, teacher: Teacher, *, mirrored: bool) -> Tensor:
    features = []
    with Progress("teacher, mirrored" if mirrored else "teacher", len(pixels_NPP3)) as progress:
        for block in torch.split(pixels_NPP3, BLOCK):
            pixels = to_unit(block)
            pixels = teacher_view(pixels.flip(3) if mirrored else pixels, teacher.geometry)
            with devices.autocast(str(pixels.device)):
                features.append(teacher(pixels)[1])
            progress.add(len(block))
    return torch.cat(features)


def teacher_view(pixels_B3PP: Tensor, geometry: Geometry) -> Tensor:
    """Resize and crop pixels [B, 3, P, P] in [0, 1] to [B, 3, S, S] by the teacher's geometry.

    The function is differentiable. It equals the decoding of an image file except for the rounding
    to bytes. Interpolations other than bilinear and bicubic are replaced by bilinear.
    """
    side, size = geometry.shorter_side, geometry.size
    if pixels_B3PP.shape[-1] != side:
        mode = "bicubic" if geometry.interpolation == "bicubic" else "bilinear"
        pixels_B3PP = F.interpolate(pixels_B3PP, size=(side, side), mode=mode, antialias=True)
        pixels_B3PP = pixels_B3PP.clamp(0, 1)
    corner = round((side - size) / 2)
    return pixels_B3PP[..., corner : corner + size, corner : corner + size]
