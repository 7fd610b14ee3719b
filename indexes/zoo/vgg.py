"""VGG with BatchNorm for small images: five blocks and one Linear (Simonyan & Zisserman 2015).

These are vgg8 to vgg16 of the distillation literature, with the parameter names of the CRD release,
so that its weights load. SOURCE. Images of 64 or more pixels are also pooled before the last block;
the release does so at exactly 64.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from indexes.zoo._classifier import Classifier, initialize

__all__ = ["vgg8", "vgg11", "vgg13", "vgg16"]

WIDTHS = (64, 128, 256, 512, 512)


class Vgg(Classifier):
    """Block i has `depths[i]` 3x3 convolutions of WIDTHS[i] channels, each with BatchNorm."""

    def __init__(self, depths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        width_in = 3
        for number, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True)):
            layers: list[nn.Module] = []
            for _ in range(depth):
                layers += [nn.Conv2d(width_in, width, 3, padding=1), nn.BatchNorm2d(width)]
                layers.append(nn.ReLU())
                width_in = width
            # forward_features applies the last ReLU, which keeps the published parameter names.
            self.add_module(f"block{number}", nn.Sequential(*layers[:-1]))
        self.classifier = nn.Linear(width_in, num_classes)
        initialize(self, linear_std=0.01)

    def forward_features(self, pixels: Tensor) -> Tensor:
        """Map normalized pixels [B, 3, H, W] to the last map [B, 512, h, w], after its ReLU."""
        x = pixels
        num_pools = 4 if pixels.shape[-1] >= 64 else 3
        for number in range(len(WIDTHS)):
            x = F.relu(self.get_submodule(f"block{number}")(x))
            if number < num_pools:
                x = F.max_pool2d(x, 2)
        return x

    def get_classifier(self) -> nn.Linear:
        """Return the last Linear, with a weight [C, 512]."""
        return self.classifier


def vgg8(num_classes: int) -> Vgg:
    """VGG-8; 3.97 M parameters at 100 classes."""
    return Vgg((1, 1, 1, 1, 1), num_classes)


def vgg11(num_classes: int) -> Vgg:
    """VGG-11; 9.28 M parameters at 100 classes."""
    return Vgg((1, 1, 2, 2, 2), num_classes)


def vgg13(num_classes: int) -> Vgg:
    """VGG-13; 9.46 M parameters at 100 classes."""
    return Vgg((2, 2, 2, 2, 2), num_classes)


def vgg16(num_classes: int) -> Vgg:
    """VGG-16; 14.8 M parameters at 100 classes."""
    return Vgg((2, 2, 3, 3, 3), num_classes)
