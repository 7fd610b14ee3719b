"""What the CIFAR nets share: the timm-like seam (map, features, logits) and the initialization."""

from __future__ import annotations

from torch import Tensor, nn


class Classifier(nn.Module):
    """A net that is a map, its spatial mean and one Linear.

    A family writes `forward_features` and `get_classifier`; the rest is here.
    """

    def forward_features(self, pixels: Tensor) -> Tensor:
        """Normalized pixels [B, 3, H, W] -> the last map [B, D, h, w], after its ReLU."""
        raise NotImplementedError

    def get_classifier(self) -> nn.Linear:
        """The last Linear, [C, D]."""
        raise NotImplementedError

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """A map [B, D, h, w] -> logits [B, C], or with `pre_logits` the pooled features [B, D]."""
        pooled = features.mean((2, 3))
        if pre_logits:
            return pooled
        logits: Tensor = self.get_classifier()(pooled)
        return logits

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalized pixels [B, 3, H, W], H and W of at least 32 -> logits [B, C]."""
        return self.forward_head(self.forward_features(pixels))


def initialize(net: nn.Module, *, linear_std: float | None = None) -> None:
    """He initialization by fan-out for convolutions, BatchNorm at one and zero.

    `linear_std` None leaves a Linear at PyTorch's default; else normal of that spread, bias zero.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, std=linear_std)
            nn.init.zeros_(module.bias)
