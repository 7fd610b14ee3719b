"""MixDistribution matches its formula."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from distill.methods._mix_distribution import mix_distribution

pytestmark = pytest.mark.usefixtures("one_thread")


def test_mix_distribution_matches_the_formula() -> None:
    pixels = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    partner, share = torch.tensor([1, 2, 0]), torch.tensor([0.3, 1.0, 0.0], dtype=torch.float64)
    found = mix_distribution(pixels, partner, share)
    for b, channel in itertools.product(range(3), range(3)):
        x, other = pixels[b, channel], pixels[partner[b], channel]
        lam = share[b]
        std = lam * x.std(correction=0) + (1 - lam) * other.std(correction=0)
        typed = (
            std * (x - x.mean()) / x.std(correction=0) + lam * x.mean() + (1 - lam) * other.mean()
        )
        torch.testing.assert_close(found[b, channel], typed)
    torch.testing.assert_close(found[1], pixels[1])
    # Without a share of its own, an image takes the mean and spread of its partner.
    torch.testing.assert_close(found[2].mean((1, 2)), pixels[0].mean((1, 2)))
    torch.testing.assert_close(found[2].std((1, 2)), pixels[0].std((1, 2)))


def test_mix_distribution_commutes_with_a_normalization() -> None:
    pixels = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    partner, share = torch.tensor([3, 0, 1, 2]), torch.tensor([0.1, 0.5, 0.9, 0.4])
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])

    def normal(x: Tensor) -> Tensor:
        return (x - mean[:, None, None]) / std[:, None, None]

    torch.testing.assert_close(
        mix_distribution(normal(pixels), partner, share),
        normal(mix_distribution(pixels, partner, share)),
    )
    flat = torch.full((2, 3, 8, 8), 0.5)
    assert torch.isfinite(mix_distribution(flat, torch.tensor([1, 0]), torch.rand(2))).all()
