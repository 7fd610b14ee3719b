"""A student that reuses its teacher's classifier: an encoder, a projector and the frozen Linear.

SimKD, KD3 and HiDFD deploy students of this form. SOURCE (KD3's code, arXiv 2307.11469).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from indexes.zoo._classifier import Classifier, initialize


class Reused(Classifier):
    """encoder -> its map, pooled to `side` if it is larger -> projector -> mean -> Linear."""

    def __init__(
        self,
        encoder: nn.Module,
        extract: Callable[[Any, Tensor], tuple[Tensor, Tensor]],
        *,
        width_in: int,
        width: int,
        side: tuple[int, int],
        num_classes: int,
        factor: int,
        depthwise: bool,
        signed: bool,
    ) -> None:
        """`extract` returns the encoder's map [B, width_in, h, w]; `side` is that of the teacher.

        The projector has convolutions 1x1, 3x3 (`depthwise`: one group per channel) and 1x1, each
        followed by BatchNorm and ReLU, with width / factor inner channels. The last ReLU is left
        out if the teacher's features are `signed`.
        """
        super().__init__()
        inner = max(1, width // factor)
        self.encoder, self.side = encoder, side
        self._extract = extract
        layers = [
            *_layer(width_in, inner, 1),
            *_layer(inner, inner, 3, groups=inner if depthwise else 1),
            *_layer(inner, width, 1),
        ]
        self.projector = nn.Sequential(*(layers[:-1] if signed else layers))
        initialize(self.projector)
        self.classifier = nn.Linear(width, num_classes).requires_grad_(False)

    def forward_features(self, pixels: Tensor) -> Tensor:
        """Map normalized pixels [B, 3, H, W] to the projected map [B, width, h, w]."""
        map_BDHW, _ = self._extract(self.encoder, pixels)
        height, width = map_BDHW.shape[2:]
        target = min(height, self.side[0]), min(width, self.side[1])
        if target != (height, width):
            map_BDHW = F.adaptive_avg_pool2d(map_BDHW, target)
        projected: Tensor = self.projector(map_BDHW)
        return projected

    def get_classifier(self) -> nn.Linear:
        """Return the teacher's Linear, with a weight [C, width]."""
        return self.classifier


def _layer(width_in: int, width: int, kernel: int, groups: int = 1) -> list[nn.Module]:
    padding = kernel // 2
    conv = nn.Conv2d(width_in, width, kernel, padding=padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(width), nn.ReLU()]
