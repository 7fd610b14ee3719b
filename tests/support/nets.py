"""A net that is in no library."""

from __future__ import annotations

from torch import Tensor, nn


class Plain(nn.Module):
    """A user's net: it pools with a function call and ends in a Linear."""

    def __init__(self, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.conv(pixels).mean((2, 3)))
        return logits
