"""Fingerprint: how far an image's feature statistics lie from the teacher's BatchNorm statistics.

Each BatchNorm keeps a running mean m and variance v per channel of the data that the teacher was
trained on: the lost original's own fingerprint (OURS; METHODS section 6).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from indexes.logits import to_half
from indexes.models.teacher import Teacher

MAX_CHANNELS = 512
"""Of a wider last layer this many evenly spaced channels are kept."""
MIN_SIDE = 8
"""Larger maps are read at every second, fourth, ... position, at least this many a side."""


class BatchNormStats:
    """Listens to the BatchNorms of a teacher; `pop` gives the statistics of the last forward.

    moments [b, 2K] of the last BatchNorm's input x, K channels: mean over H, W of z = (x - m) /
    sqrt(v), then mean of z^2 - 1. Over the lost original both are 0 in every channel.
    bn [b, L]: per BatchNorm, the mean over channels of mean(z)^2 + (std(z) - 1)^2, the distance of
    two diagonal Gaussians in units of v.
    A teacher without BatchNorm2d gives neither.

    Example:
        >>> with BatchNormStats(teacher) as bn_stats:
        ...     teacher(pixels)
        ...     moments = bn_stats.pop()["moments"]
    """

    def __init__(self, teacher: Teacher) -> None:
        self._stats: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        layers = [m for m in teacher.net.module.modules() if _is_running(m)]
        self._handles = [layer.register_forward_pre_hook(self._listen) for layer in layers]

    def __enter__(self) -> BatchNormStats:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _listen(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        x: Any = inputs[0]
        if x.ndim != 4:
            return
        step = max(1, min(x.shape[2:]) // MIN_SIDE)
        z: Any = x[:, :, ::step, ::step].float() - layer.running_mean[:, None, None]  # type: ignore[index]
        z *= layer.running_var.clamp_min(1e-12).rsqrt()[:, None, None]  # type: ignore[operator]
        self._stats[layer] = z.mean((2, 3)), z.square_().mean((2, 3))

    def pop(self) -> dict[str, Tensor]:
        """{"bn": [b, L], "moments": [b, 2K]} float16 of the last forward, {} without BatchNorm."""
        stats, self._stats = list(self._stats.values()), {}
        if not stats:
            return {}
        layers = []
        for mean, square in stats:
            spread = (square - mean.square()).clamp_min(0).sqrt()
            layers.append((mean.square() + (spread - 1).square()).mean(1))
        mean, square = stats[-1]
        channels = _spaced(mean.shape[1], mean.device)
        moments = torch.cat([mean[:, channels], square[:, channels] - 1], 1)
        return {"bn": to_half(torch.stack(layers, 1)), "moments": to_half(moments)}


def _is_running(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and module.running_mean is not None


def _spaced(width: int, device: torch.device) -> Tensor:
    if width <= MAX_CHANNELS:
        return torch.arange(width, device=device)
    return torch.arange(MAX_CHANNELS, device=device) * width // MAX_CHANNELS
