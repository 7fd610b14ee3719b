"""A student that ends in its teacher's own classifier: encoder, projector, that Linear frozen.

The form that SimKD, KD3 and HiDFD deploy. SOURCE (KD3's code, arXiv 2307.11469).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from distill.students._classifier import Classifier, initialise


class Reused(Classifier):
    """encoder -> its map, pooled to `side` where it is larger -> projector -> mean -> Linear."""

    def __init__(
        self,
        encoder: nn.Module,
        tap: Callable[[Any, Tensor], tuple[Tensor, Tensor]],
        *,
        width_in: int,
        width: int,
        side: tuple[int, int],
        num_classes: int,
        factor: int,
        signed: bool,
    ) -> None:
        """`tap` gives the encoder's map [B, width_in, h, w]; `side` is the map's that it learns.

        The projector is 1x1, 3x3, 1x1, a BatchNorm and a ReLU after each, width / factor channels
        between; without the last ReLU where the features to be learnt are `signed`.
        """
        super().__init__()
        inner = max(1, width // factor)
        self.encoder, self.side = encoder, side
        self._tap = tap
        layers: list[nn.Module] = []
        for from_width, to_width, kernel in (
            (width_in, inner, 1),
            (inner, inner, 3),
            (inner, width, 1),
        ):
            layers.append(nn.Conv2d(from_width, to_width, kernel, padding=kernel // 2, bias=False))
            layers += [nn.BatchNorm2d(to_width), nn.ReLU()]
        self.projector = nn.Sequential(*(layers[:-1] if signed else layers))
        initialise(self.projector)
        self.classifier = nn.Linear(width, num_classes).requires_grad_(False)

    def forward_features(self, pixels: Tensor) -> Tensor:
        map_BDHW, _ = self._tap(self.encoder, pixels)
        height, width = map_BDHW.shape[2:]
        target = min(height, self.side[0]), min(width, self.side[1])
        if target != (height, width):
            map_BDHW = F.adaptive_avg_pool2d(map_BDHW, target)
        projected: Tensor = self.projector(map_BDHW)
        return projected

    def get_classifier(self) -> nn.Linear:
        return self.classifier
