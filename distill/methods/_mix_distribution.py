"""MixDistribution: keep an image's content and mix its color statistics with another image's."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_STD = 1e-3  # of pixels in [0, 1]: an image of one color keeps that color


def mix_distribution(pixels_B3HW: Tensor, partner_B: Tensor, share_B: Tensor) -> Tensor:
    """[l sd(x) + (1-l) sd(x')] (x - mu(x)) / sd(x) + l mu(x) + (1-l) mu(x') -> [B, 3, H, W].

    mu and sd are per image and channel over H and W; x' is the image at `partner_B` [B], l =
    `share_B` [B] in 0-1. It commutes with a normalization per channel, so pixels may be raw.
    SOURCE (KD3, arXiv 2307.11469).
    """
    std, mean = torch.std_mean(pixels_B3HW, dim=(2, 3), keepdim=True, correction=0)
    std = std.clamp_min(MIN_STD)
    share = share_B.view(-1, 1, 1, 1)
    mixed_std = share * std + (1 - share) * std[partner_B]
    mixed_mean = share * mean + (1 - share) * mean[partner_B]
    return mixed_std * (pixels_B3HW - mean) / std + mixed_mean
