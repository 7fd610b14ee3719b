"""MobileNetV2 for small images: half and full width (Sandler et al. 2018; CIFAR form of CRD).

It has a stem of stride 2, a map of 2x2 for images of 32 pixels, ReLU instead of ReLU6, and the
parameter names of the CRD release, so that its weights load. SOURCE.
"""

from __future__ import annotations

from torch import Tensor, nn

from indexes.zoo._classifier import Classifier, initialize

__all__ = ["mobilenetv2", "mobilenetv2_100"]

# expansion, channels at full width, blocks, stride of the first block
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
NUM_FEATURES = 1280


class Block(nn.Module):
    """A 1x1 that expands, a depthwise 3x3, a linear 1x1; a shortcut if the shape is unchanged."""

    def __init__(self, width_in: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width_in * expansion
        self.shortcut = stride == 1 and width_in == width
        self.conv = nn.Sequential(
            nn.Conv2d(width_in, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, width_in, H, W] to [B, width, H / stride, W / stride]."""
        y: Tensor = self.conv(x)
        return x + y if self.shortcut else y


class MobileNetV2(Classifier):
    """All widths are scaled by `width_frac`, except the last: features are always 1280 wide."""

    def __init__(self, width_frac: float, num_classes: int) -> None:
        super().__init__()
        width_in = int(32 * width_frac)
        self.conv1 = _stem(3, width_in, 3, 2)
        self.blocks = nn.Sequential()
        for expansion, channels, depth, first_stride in STAGES:
            width = int(channels * width_frac)
            stage = nn.Sequential()
            for stride in [first_stride] + [1] * (depth - 1):
                stage.append(Block(width_in, width, stride, expansion))
                width_in = width
            self.blocks.append(stage)
        self.conv2 = _stem(width_in, NUM_FEATURES, 1, 1)
        self.classifier = nn.Sequential(nn.Linear(NUM_FEATURES, num_classes))
        initialize(self, linear_std=0.01)

    def forward_features(self, pixels: Tensor) -> Tensor:
        """Map normalized pixels [B, 3, H, W] to the last map [B, 1280, h, w], after its ReLU."""
        x: Tensor = self.conv2(self.blocks(self.conv1(pixels)))
        return x

    def get_classifier(self) -> nn.Linear:
        """Return the last Linear, with a weight [C, 1280]."""
        last = self.classifier[0]
        assert isinstance(last, nn.Linear)
        return last


def _stem(width_in: int, width: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


def mobilenetv2(num_classes: int) -> MobileNetV2:
    """MobileNetV2 of half width; .81 M parameters at 100 classes."""
    return MobileNetV2(0.5, num_classes)


def mobilenetv2_100(num_classes: int) -> MobileNetV2:
    """MobileNetV2 of full width; 2.35 M parameters at 100 classes."""
    return MobileNetV2(1.0, num_classes)
