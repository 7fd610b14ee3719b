"""A student that reuses its teacher's classifier: an encoder, a projector and the frozen Linear.

SimKD, KD3 and HiDFD deploy students of this form. SOURCE (KD3's code, arXiv 2307.11469).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from indexes.zoo._classifier import Classifier, initialize


class Projector(nn.Sequential):
    """A net that maps a student's map [B, width_in, h, w] to its teacher's [B, width, h', w'].

    The map is average-pooled to `side`, the teacher's, where it is larger. Convolutions 1x1, 3x3
    (`depthwise`: one group per channel) and 1x1 follow, each with BatchNorm and ReLU, with width /
    factor inner channels. The last ReLU is left out if the teacher's map is `signed`. SOURCE
    (SimKD, arXiv 2203.14001).
    """

    def __init__(
        self,
        width_in: int,
        width: int,
        *,
        side: Sequence[int],
        factor: int,
        depthwise: bool,
        signed: bool,
    ) -> None:
        inner = max(1, width // factor)
        layers = [
            *_layer(width_in, inner, 1),
            *_layer(inner, inner, 3, groups=inner if depthwise else 1),
            *_layer(inner, width, 1),
        ]
        super().__init__(*(layers[:-1] if signed else layers))
        self.side = tuple(side)
        initialize(self)

    def forward(self, map_BDHW: Tensor) -> Tensor:
        """Return the projected map [B, width, h', w'] of a map [B, width_in, h, w]."""
        height, width = map_BDHW.shape[2:]
        target = min(height, self.side[0]), min(width, self.side[1])
        if target != (height, width):
            map_BDHW = F.adaptive_avg_pool2d(map_BDHW, target)
        for layer in self:
            map_BDHW = layer(map_BDHW)
        return map_BDHW


class Reused(Classifier):
    """encoder -> its map -> Projector -> mean -> Linear."""

    def __init__(
        self,
        encoder: nn.Module,
        extract: Callable[[Any, Tensor], tuple[Tensor, Tensor]],
        *,
        width_in: int,
        width: int,
        side: Sequence[int],
        num_classes: int,
        factor: int,
        depthwise: bool,
        signed: bool,
    ) -> None:
        """`extract` returns the encoder's map [B, width_in, h, w] and features.

        The other arguments are those of `Projector`.
        """
        super().__init__()
        self.encoder, self._extract = encoder, extract
        self.projector = Projector(
            width_in, width, side=side, factor=factor, depthwise=depthwise, signed=signed
        )
        self.classifier = nn.Linear(width, num_classes).requires_grad_(False)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map normalized pixels [B, 3, H, W] to the encoder's map [B, width_in, h, w], features."""
        return self._extract(self.encoder, pixels)

    def forward_features(self, pixels: Tensor) -> Tensor:
        """Map normalized pixels [B, 3, H, W] to the projected map [B, width, h, w]."""
        projected: Tensor = self.projector(self.encode(pixels)[0])
        return projected

    def get_classifier(self) -> nn.Linear:
        """Return the teacher's Linear, with a weight [C, width]."""
        return self.classifier


def _layer(width_in: int, width: int, kernel: int, groups: int = 1) -> list[nn.Module]:
    padding = kernel // 2
    conv = nn.Conv2d(width_in, width, kernel, padding=padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(width), nn.ReLU()]
