"""A shard set as a generator sees it: its pixels, and what the teacher says of each of them.

N images, P side of a synthetic image, D_T the teacher's features, C classes. The images have no
labels and all count alike: the class of an image is the teacher's when the shards were written.
HiDFD is blamed for taking the teacher's word, but unlabeled images have no other.
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

BLOCK = 128  # images of one forward: always as many, so that the features are the same


@dataclass(frozen=True)
class TrainingImages:
    """pixels uint8 [N, P, P, 3]; features [2, N, D_T] of each image as it is and mirrored; labels
    [N], the teacher's classes; all on one device.
    """

    pixels: Tensor
    features: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def view(self, rows_B: Tensor, mirrored_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images [B, 3, P, P] in [-1, 1], their features [B, D_T] and labels [B].

        `mirrored_B` is 0 or 1 for each of the rows.
        """
        pixels = to_unit(self.pixels[rows_B])
        pixels = torch.where(mirrored_B[:, None, None, None] > 0, pixels.flip(3), pixels)
        return pixels * 2 - 1, self.features[mirrored_B, rows_B], self.labels[rows_B]


def read_images(shards: Shards, teacher: Teacher, side: int, device: str) -> TrainingImages:
    """All images of a shard set, decoded, with their features; memory N (3 P^2 + 8 D_T) bytes.

    ArtifactError for shards of another teacher, ValueError for an image that is damaged.
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
    """Pixels [B, 3, P, P] in [0, 1] -> [B, 3, S, S] as the teacher's geometry cuts them.

    Differentiable, and as a reader of the file would see it but for the rounding to bytes (and
    for interpolations other than bilinear and bicubic, which are taken for bilinear).
    """
    side, size = geometry.shorter_side, geometry.size
    if pixels_B3PP.shape[-1] != side:
        mode = "bicubic" if geometry.interpolation == "bicubic" else "bilinear"
        pixels_B3PP = F.interpolate(pixels_B3PP, size=(side, side), mode=mode, antialias=True)
        pixels_B3PP = pixels_B3PP.clamp(0, 1)
    corner = round((side - size) / 2)
    return pixels_B3PP[..., corner : corner + size, corner : corner + size]
