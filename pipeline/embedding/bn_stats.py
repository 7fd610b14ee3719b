"""BatchNorm statistics: how far an image's activations are from the teacher's running statistics.

Each BatchNorm stores a running mean m and variance v per channel of the data that the teacher was
trained on. They are a fingerprint of the lost training data (OURS).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from indexes.logits import to_half
from indexes.models.teacher import Teacher

MAX_CHANNELS = 512
"""If the last layer is wider, this many evenly spaced channels are kept."""
MIN_SIDE = 8
"""Larger maps are subsampled with an integer stride that leaves at least this many positions per
side."""


class BatchNormStats:
    """Forward hooks on a teacher's BatchNorms; `pop` returns the statistics of the last forward.

    moments [B, 2K], for the K channels of the input x of the last BatchNorm: the mean over H, W of
    z = (x - m) / sqrt(v), then the mean of z^2 - 1. Averaged over the lost training data, both are
    0 in every channel. bn [B, L], for L BatchNorms: the mean over channels of
    mean(z)^2 + (std(z) - 1)^2, the distance of two diagonal Gaussians in units of v. A teacher
    without BatchNorm2d gives neither.

    Example::

        with BatchNormStats(teacher) as bn_stats:
            teacher(pixels)
            moments = bn_stats.pop()["moments"]
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
        """Return `bn` [B, L] and `moments` [B, 2K], float16, of the last forward pass.

        The result is empty if the teacher has no BatchNorm2d.
        """
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
