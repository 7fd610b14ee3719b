"""Wide ResNets for small images, pre-activation, no dropout (Zagoruyko & Komodakis 2016).

`wrn_d_k` has three stages of (d - 4) / 6 blocks each and 16k, 32k and 64k channels. Parameter names
are those of the CRD release, so that its weights load. SOURCE.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from indexes.zoo._classifier import Classifier, initialize

__all__ = ["wrn_16_1", "wrn_16_2", "wrn_28_10", "wrn_40_1", "wrn_40_2"]


class Block(nn.Module):
    """BN, ReLU, 3x3, BN, ReLU, 3x3 and a shortcut.

    If the width changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        # The name is that of the release whose weights must load.
        self.convShortcut: nn.Module | None = None
        if width_in != width:
            self.convShortcut = nn.Conv2d(width_in, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, width_in, H, W] to [B, width, H / stride, W / stride]."""
        activated = F.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(activated)
        y: Tensor = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return y + shortcut


class Stage(nn.Module):
    """A stage of `depth` blocks; only the first one has the stride."""

    def __init__(self, depth: int, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            *(
                Block(width_in if number == 0 else width, width, stride if number == 0 else 1)
                for number in range(depth)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, width_in, H, W] to [B, width, H / stride, W / stride]."""
        y: Tensor = self.layer(x)
        return y


class WideResNet(Classifier):
    """A stem of 16 channels and three stages; the map is taken after the last BN and ReLU."""

    def __init__(self, depth: int, widen: int, num_classes: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.block1 = Stage(blocks, 16, 16 * widen, 1)
        self.block2 = Stage(blocks, 16 * widen, 32 * widen, 2)
        self.block3 = Stage(blocks, 32 * widen, 64 * widen, 2)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.fc = nn.Linear(64 * widen, num_classes)
        initialize(self)
        nn.init.zeros_(self.fc.bias)

    def forward_features(self, pixels: Tensor) -> Tensor:
        """Map normalized pixels [B, 3, H, W] to the last map [B, D, h, w], after its ReLU."""
        x = self.block3(self.block2(self.block1(self.conv1(pixels))))
        return F.relu(self.bn1(x))

    def get_classifier(self) -> nn.Linear:
        """Return the last Linear, with a weight [C, D]."""
        return self.fc


def wrn_16_1(num_classes: int) -> WideResNet:
    """WRN-16-1; .18 M parameters at 100 classes."""
    return WideResNet(16, 1, num_classes)


def wrn_16_2(num_classes: int) -> WideResNet:
    """WRN-16-2; .70 M parameters at 100 classes."""
    return WideResNet(16, 2, num_classes)


def wrn_40_1(num_classes: int) -> WideResNet:
    """WRN-40-1; .57 M parameters at 100 classes."""
    return WideResNet(40, 1, num_classes)


def wrn_40_2(num_classes: int) -> WideResNet:
    """WRN-40-2; 2.26 M parameters at 100 classes."""
    return WideResNet(40, 2, num_classes)


def wrn_28_10(num_classes: int) -> WideResNet:
    """WRN-28-10; 36.5 M parameters at 100 classes."""
    return WideResNet(28, 10, num_classes)
