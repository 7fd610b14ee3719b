"""The feature maps of nets, and the map that a student learns from its teacher.

Some students learn the teacher's last map and reuse its classifier for their logits (SimKD,
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
    """The outputs of a net for a few images: map [B, D', h, w] and features [B, D]."""

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
    """Return the outputs of `net` for images of noise; its mode (training or not) is restored.

    Raises NetError if the net does not take images of `size` pixels.
    """
    device = next(net.parameters()).device
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(NUM_PROBED, 3, size, size, generator=generator).to(device)
    was_training = net.module.training
    net.eval()
    try:
        map_BDHW, features_BD, _ = net(pixels)
    except Exception as error:
        # Libraries raise errors of any type for a size that they do not take.
        raise NetError(
            f"{net.builder} does not take images of {size} pixels ({error}): choose another net, "
            "or add arguments to the name, as in "
            f"timm:vit_tiny_patch16_224:img_size={size}:patch_size=4"
        ) from error
    finally:
        net.train(was_training)
    return FeatureShape(map_BDHW, features_BD)


@dataclass(frozen=True)
class TeacherMap:
    """The map [D, h, w] that a student learns from its teacher.

    If `pooled`, it is the teacher's last map. Otherwise (a ViT's class token, or a norm or another
    layer after the pooling), it is the features as [D, 1, 1]. The mean of the map is therefore
    always the input of the classifier. If `signed`, the map has negative values, so a student's
    projector must not end in a ReLU.
    """

    shape: tuple[int, int, int]
    pooled: bool
    signed: bool

    def map_of(self, map_BDHW: Tensor, features_BD: Tensor) -> Tensor:
        """Return the map [B, D, h, w] to learn, from the teacher's last map and features."""
        return map_BDHW if self.pooled else features_BD[:, :, None, None]


def teacher_map(teacher: Teacher) -> TeacherMap:
    """Return the shape and the form of the map that students learn from `teacher`."""
    probed = probe_features(teacher.net, teacher.card.input_size)
    pooled = probed.is_pooled
    target = probed.map if pooled else probed.features[:, :, None, None]
    _, depth, height, width = target.shape
    return TeacherMap((depth, height, width), pooled, bool((target < 0).any()))
