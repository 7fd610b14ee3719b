"""HiDFD's generator against the formulas of its release, typed again with closed-form gradients.

Two defects of the release are mended in both: its feature terms had no gradient, and its counts
were never updated.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.generators import _hidfd_losses as losses
from tests.support.reference import normal

Array = NDArray[np.float64]
pytestmark = pytest.mark.usefixtures("one_thread")
B, C, D = 6, 4, 5
CLASSES = torch.tensor([0, 2, 1, 3, 2, 0])
EXACT = {"rtol": 1e-12, "atol": 1e-14}


def leaf(*shape: int, seed: int) -> Tensor:
    return normal(*shape, seed=seed).requires_grad_()


def gradient(value: Tensor, x: Tensor) -> Array:
    (slope,) = torch.autograd.grad(value, x)
    return np.asarray(slope.numpy())


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def test_scores_move_only_within_the_margin() -> None:
    real, fake = leaf(B, seed=0), leaf(B, seed=1)
    x, y = real.detach().numpy(), fake.detach().numpy()
    value = losses.hinge_discriminator(real, fake)
    wanted = np.maximum(0, 1 - x).mean() + np.maximum(0, 1 + y).mean()
    assert value.item() == pytest.approx(wanted, rel=1e-12)
    (by_real, by_fake) = torch.autograd.grad(value, (real, fake))
    np.testing.assert_allclose(by_real.numpy(), np.where(x < 1, -1, 0) / B, **EXACT)
    np.testing.assert_allclose(by_fake.numpy(), np.where(y > -1, 1, 0) / B, **EXACT)
    np.testing.assert_allclose(gradient(losses.hinge_generator(fake), fake), np.full(B, -1 / B))


def test_real_and_synthetic_images_have_two_columns_per_class() -> None:
    real, fake = leaf(B, 2 * C, seed=0), leaf(B, 2 * C, seed=1)
    x, y, k = real.detach().numpy(), fake.detach().numpy(), CLASSES.numpy()
    rows = np.arange(B)
    value = losses.adc_discriminator(real, CLASSES, fake, CLASSES)
    wanted = -np.log(softmax(x)[rows, 2 * k]).mean() - np.log(softmax(y)[rows, 2 * k + 1]).mean()
    assert value.item() == pytest.approx(wanted, rel=1e-12)
    by_real, by_fake = torch.autograd.grad(value, (real, fake))
    one_hot = np.eye(2 * C)
    np.testing.assert_allclose(by_real.numpy(), (softmax(x) - one_hot[2 * k]) / B, **EXACT)
    np.testing.assert_allclose(by_fake.numpy(), (softmax(y) - one_hot[2 * k + 1]) / B, **EXACT)
    # The generator's two cross-entropies share their normalizer, so a plain difference is left.
    value = losses.adc_generator(fake, CLASSES)
    assert value.item() == pytest.approx((y[rows, 2 * k + 1] - y[rows, 2 * k]).mean(), rel=1e-12)
    wanted_slope = (one_hot[2 * k + 1] - one_hot[2 * k]) / B
    np.testing.assert_allclose(gradient(value, fake), wanted_slope, rtol=0, atol=1e-15)


def test_each_teacher_feature_attracts_both_kinds_of_images() -> None:
    """The release adds up anchors: both distances of h_T(r), and both distances of h_T(f)."""
    t_real, t_fake = normal(B, D), normal(B, D, seed=1)
    d_real, d_fake = leaf(B, D, seed=2), leaf(B, D, seed=3)

    def unit(a: Array, b: Array) -> Array:
        return np.asarray((a - b) / np.linalg.norm(a - b, axis=1, keepdims=True))

    features = t_real, d_real, t_fake, d_fake
    value = losses.transfer(*features) + losses.blend(*features)
    x, y = d_real.detach().numpy(), d_fake.detach().numpy()
    anchors = t_real.numpy(), t_fake.numpy()
    wanted = sum(np.linalg.norm(a - h, axis=1).mean() for a in anchors for h in (x, y))
    assert value.item() == pytest.approx(wanted, rel=1e-12)
    by_real, by_fake = torch.autograd.grad(value, (d_real, d_fake))
    np.testing.assert_allclose(by_real.numpy(), sum(unit(x, a) for a in anchors) / B, **EXACT)
    np.testing.assert_allclose(by_fake.numpy(), sum(unit(y, a) for a in anchors) / B, **EXACT)


def test_smoothing_and_its_gradient() -> None:
    logits = leaf(B, C, seed=4)
    weights = torch.tensor([0.4, 1.1, 2.0, 0.5], dtype=torch.float64)
    value = losses.frequency(logits, weights)
    p, v = softmax(logits.detach().numpy()), weights.numpy()
    mean = p.mean(0)
    assert value.item() == pytest.approx((v * mean * np.log(mean)).sum(), rel=1e-12)
    slope = v * (np.log(mean) + 1)  # by pbar
    typed = p * (slope - (p * slope).sum(1, keepdims=True)) / B
    np.testing.assert_allclose(gradient(value, logits), typed, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("beta", [0.99, 0.9999])
def test_counts_and_weights_over_many_updates(beta: float) -> None:
    random = np.random.default_rng(0)
    counts = [50.0] * C  # the release begins with fifty images of every class
    ours = torch.tensor(counts, dtype=torch.float64)
    for _ in range(12):
        predicted = random.choice(C, size=100, p=(0.7, 0.2, 0.1, 0.0))
        seen = [int((predicted == k).sum()) for k in range(C)]
        counts = [max(1.0, 0.5 * n + 0.5 * new) for n, new in zip(counts, seen, strict=True)]
        effective = [1.0 - beta**n for n in counts]
        raw = [(1.0 - beta) / e for e in effective]
        wanted = [w / math.fsum(raw) * C for w in raw]
        ours = losses.updated_counts(ours, torch.tensor(seen, dtype=torch.float64))
        assert ours.tolist() == counts
        # 1 - beta^N loses digits in the plain form.
        assert losses.class_weights(ours, beta).tolist() == pytest.approx(wanted, rel=1e-10)
    assert counts[3] == 1
    assert wanted[3] == max(wanted)
