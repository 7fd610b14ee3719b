"""The base of the CIFAR nets: the timm-like interface (map, features, logits), initialization."""

from __future__ import annotations

from torch import Tensor, nn


class Classifier(nn.Module):
    """A net that computes a map, its spatial mean and one Linear.

    A family implements `forward_features` and `get_classifier`.
    """

    def forward_features(self, pixels: Tensor) -> Tensor:
        """Map normalized pixels [B, 3, H, W] to the last map [B, D, h, w], after its ReLU."""
        raise NotImplementedError

    def get_classifier(self) -> nn.Linear:
        """Return the last Linear, with a weight [C, D]."""
        raise NotImplementedError

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Turn a map [B, D, h, w] into logits [B, C], or with `pre_logits` into features [B, D]."""
        pooled = features.mean((2, 3))
        if pre_logits:
            return pooled
        logits: Tensor = self.get_classifier()(pooled)
        return logits

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalized pixels [B, 3, H, W], with H and W of at least 32, to logits [B, C]."""
        return self.forward_head(self.forward_features(pixels))


def initialize(net: nn.Module, *, linear_std: float | None = None) -> None:
    """Initialize convolutions by He's rule (fan-out), BatchNorm weights to 1 and biases to 0.

    With `linear_std`, Linear weights are normal with that standard deviation and biases are 0.
    With None they keep PyTorch's default.
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
