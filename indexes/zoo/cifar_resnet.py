"""ResNets for small images: 3x3 stem, no first pooling (He et al. 2016; x4 widths from CRD).

Parameter names are those of torchvision and of the CRD and SimKD releases, so published weights
load. resnet18 and resnet34 have four stages of 64 to 512 channels. The others have three stages of
(d - 2) / 6 blocks each, for a depth of d layers. SOURCE.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from indexes.zoo._classifier import Classifier, initialize

__all__ = [
    "resnet8",
    "resnet8x4",
    "resnet14",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet32x4",
    "resnet34",
    "resnet44",
    "resnet56",
    "resnet110",
]


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 with BN if the shape changes."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride != 1 or width_in != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, width_in, H, W] to [B, width, H / stride, W / stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + shortcut)


class CifarResNet(Classifier):
    """A stem of `stem` channels, then stages of `blocks[i]` blocks with `widths[i]` channels."""

    def __init__(
        self, blocks: Sequence[int], widths: Sequence[int], stem: int, num_classes: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.num_stages = len(blocks)
        width_in = stem
        for number, (depth, width) in enumerate(zip(blocks, widths, strict=True), start=1):
            strides = [1 if number == 1 else 2] + [1] * (depth - 1)
            stage = nn.Sequential()
            for stride in strides:
                stage.append(Block(width_in, width, stride))
                width_in = width
            self.add_module(f"layer{number}", stage)
        self.fc = nn.Linear(width_in, num_classes)
        initialize(self)

    def forward_features(self, pixels: Tensor) -> Tensor:
        """Map normalized pixels [B, 3, H, W] to the last map [B, D, h, w], after its ReLU."""
        x = F.relu(self.bn1(self.conv1(pixels)))
        for number in range(1, self.num_stages + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return x

    def get_classifier(self) -> nn.Linear:
        """Return the last Linear, with a weight [C, D]."""
        return self.fc


def _three_stages(depth: int, num_classes: int, *, stem: int = 16, width: int = 16) -> CifarResNet:
    blocks = (depth - 2) // 6
    return CifarResNet([blocks] * 3, [width, 2 * width, 4 * width], stem, num_classes)


def resnet8(num_classes: int) -> CifarResNet:
    """ResNet-8, widths 16, 32, 64; .08 M parameters at 100 classes."""
    return _three_stages(8, num_classes)


def resnet14(num_classes: int) -> CifarResNet:
    """ResNet-14, widths 16, 32, 64; .18 M parameters at 100 classes."""
    return _three_stages(14, num_classes)


def resnet20(num_classes: int) -> CifarResNet:
    """ResNet-20, widths 16, 32, 64; .28 M parameters at 100 classes."""
    return _three_stages(20, num_classes)


def resnet32(num_classes: int) -> CifarResNet:
    """ResNet-32, widths 16, 32, 64; .47 M parameters at 100 classes."""
    return _three_stages(32, num_classes)


def resnet44(num_classes: int) -> CifarResNet:
    """ResNet-44, widths 16, 32, 64; .67 M parameters at 100 classes."""
    return _three_stages(44, num_classes)


def resnet56(num_classes: int) -> CifarResNet:
    """ResNet-56, widths 16, 32, 64; .86 M parameters at 100 classes."""
    return _three_stages(56, num_classes)


def resnet110(num_classes: int) -> CifarResNet:
    """ResNet-110, widths 16, 32, 64; 1.74 M parameters at 100 classes."""
    return _three_stages(110, num_classes)


def resnet8x4(num_classes: int) -> CifarResNet:
    """ResNet-8x4, stem 32, widths 64, 128, 256; 1.23 M parameters at 100 classes."""
    return _three_stages(8, num_classes, stem=32, width=64)


def resnet32x4(num_classes: int) -> CifarResNet:
    """ResNet-32x4, stem 32, widths 64, 128, 256; 7.43 M parameters at 100 classes."""
    return _three_stages(32, num_classes, stem=32, width=64)


def resnet18(num_classes: int) -> CifarResNet:
    """ResNet-18 with a 3x3 stem and no first pooling; 11.2 M parameters at 100 classes."""
    return CifarResNet([2, 2, 2, 2], [64, 128, 256, 512], 64, num_classes)


def resnet34(num_classes: int) -> CifarResNet:
    """ResNet-34 with a 3x3 stem and no first pooling; 21.3 M parameters at 100 classes."""
    return CifarResNet([3, 4, 6, 3], [64, 128, 256, 512], 64, num_classes)
