"""A teacher's classifier on a student: what maps look like, and the two put together.

Students of this form learn the teacher's last map and answer with its own classifier (SimKD,
arXiv 2203.14001; KD3, arXiv 2307.11469: SOURCE). D features of the teacher.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from indexes.models.net import Net, NetError
from indexes.models.teacher import Teacher

NUM_PROBED = 4


@dataclass(frozen=True)
class FeatureShape:
    """The outputs of a net for a few images, B of them: map [B, D', h, w], features [B, D]."""

    map: Tensor
    features: Tensor

    @property
    def is_pooled(self) -> bool:
        """Whether the features are the plain mean of the map, as in most ResNets."""
        mean = self.map.mean((2, 3))
        return mean.shape == self.features.shape and torch.allclose(
            mean.float(), self.features.float(), rtol=1e-3, atol=1e-4
        )


@torch.no_grad()
def probe_features(net: Net, size: int) -> FeatureShape:
    """What `net` makes of images of noise; it is left in the mode that it was in.

    Raises NetError for a net that does not take images of `size` pixels.
    """
    device = next(net.parameters()).device
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(NUM_PROBED, 3, size, size, generator=generator).to(device)
    was_training = net.module.training
    net.eval()
    try:
        map_BDHW, features_BD, _ = net(pixels)
    except Exception as error:
        # Libraries raise whatever they like at a size that they do not take.
        raise NetError(
            f"{net.builder} does not take images of {size} pixels ({error}). Arguments may stand "
            f"behind a name, as in timm:vit_tiny_patch16_224:img_size={size}:patch_size=4"
        ) from error
    finally:
        net.train(was_training)
    return FeatureShape(map_BDHW, features_BD)


@dataclass(frozen=True)
class TeacherMap:
    """What of a teacher is learned as its map: [D, h, w], `pooled` where it is the last map itself.

    Elsewhere (a ViT's class token, a norm or a layer after the pooling) it is the features as
    [D, 1, 1], so that the mean of the map is always what the classifier takes. `signed`: it has
    negative values, so that no ReLU can end in it.
    """

    shape: tuple[int, int, int]
    pooled: bool
    signed: bool

    def map_of(self, map_BDHW: Tensor, features_BD: Tensor) -> Tensor:
        """The map [B, D, h, w] to be learned, of what a forward of the teacher gave."""
        return map_BDHW if self.pooled else features_BD[:, :, None, None]


def teacher_map(teacher: Teacher) -> TeacherMap:
    """What `teacher` has to teach as a map."""
    probed = probe_features(teacher.net, teacher.card.input_size)
    pooled = probed.is_pooled
    target = probed.map if pooled else probed.features[:, :, None, None]
    _, depth, height, width = target.shape
    return TeacherMap((depth, height, width), pooled, bool((target < 0).any()))
