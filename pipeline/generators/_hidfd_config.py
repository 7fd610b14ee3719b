"""The settings of HiDFD's training, and its presets."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from pipeline.generators._biggan import Channels, FeatureHead, Initial


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of the training. Loss weights are those of the paper unless marked OURS."""

    pixels: int = 0
    """Side of the images in pixels, a power of two from 8 to 256. 0 takes the teacher's input
    size."""
    width: int = 64
    """Channels at full resolution. Smaller feature maps have up to four times as many."""
    channels: Channels = "tapered"
    """Channels by resolution: tapered halves them towards full resolution (OURS), biggan has
    BigGAN's table for 32 to 256 pixels, in multiples of width."""
    initial: Initial = "orthogonal"
    """Initial weights: orthogonal as in BigGAN, or normal with a standard deviation of .02."""
    feature_head: FeatureHead = "linear"
    """The discriminator's feature head: one linear layer (OURS), or two layers with spectral
    norm (normed)."""
    epochs: float = 400.0
    """Training epochs over the shards."""
    batch: int = 100
    """Images per step, real and synthetic each."""
    mirror: bool = True
    """Mirror half of the real images at random (OURS)."""
    fresh_fakes: bool = False
    """Generate other images for the generator's update than for the discriminator's. Without it
    one batch serves both, at less cost (OURS)."""
    lr_generator: float = 2e-4
    """Learning rate of the generator (Adam)."""
    lr_discriminator: float = 2e-4
    """Learning rate of the discriminator (Adam)."""
    ema: float = 0.9999
    """Decay of the averaged generator."""
    ema_start: int = 0
    """Step at which averaging starts; until then the average is a copy. 0 starts at once, with a
    decay of at most (1 + k) / (10 + k) in step k (OURS)."""
    use_ema: bool = True
    """Sample the averaged generator, not the last one."""
    standing_stats: bool = True
    """Estimate the sampled generator's BatchNorm statistics anew at the end (BigGAN's standing
    statistics). Without it they are the running ones."""
    stretch: bool = False
    """Stretch the values of each sampled image to the full range from 0 to 255."""
    trans: float = 0.1
    """Weight of the feature transfer loss L_trans."""
    blend: float = 0.1
    """Weight of the feature blending loss L_blend."""
    frequency: float = 0.1
    """Weight of category frequency smoothing, lambda_reg in the paper."""
    beta: float = 0.9999
    """Parameter of the effective number of images. 1 / (1 - beta) must exceed the counts per
    class."""
    update_steps: int = 50
    """Steps between two updates of the counts per class."""
    agree: float = 0.5
    """Weight of the cross-entropy of the teacher's prediction for a synthetic image with its
    requested class (OURS). At 0.1 they agree for 77.7 % of the images instead of 90.0 %."""
    pairs: Literal["batch", "class"] = "class"
    """The real image that a synthetic one is blended with: batch takes any, class takes one of its
    class if possible (OURS)."""
    teacher_every: int = 1
    """The teacher sees the synthetic images in every k-th step only (OURS)."""

    def __post_init__(self) -> None:
        least = {"width": 1, "batch": 2, "ema_start": 0, "update_steps": 1, "teacher_every": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {value}")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name}={value}: must be a finite number, at least 0")
        if not (0 < self.beta < 1 and self.ema < 1 and self.epochs > 0):
            raise ValueError(
                "beta must be between 0 and 1, ema must be below 1, and epochs must be above 0"
            )


PRESETS: dict[str, dict[str, Any]] = {
    # The release's settings; pipeline/generators/hidfd.py lists the differences that remain.
    "faithful": {
        "channels": "biggan",
        "initial": "normal",
        "feature_head": "normed",
        "mirror": False,
        "fresh_fakes": True,
        "ema_start": 1000,
        "use_ema": False,
        "standing_stats": False,
        "stretch": True,
        "agree": 0.0,
        "pairs": "batch",
        "teacher_every": 1,
    },
    # For a CPU: about 2,500 steps on 5,000 images.
    "small": {
        "width": 32,
        "batch": 32,
        "epochs": 16.0,
        "lr_generator": 4e-4,
        "lr_discriminator": 4e-4,
        "teacher_every": 2,
    },
}
