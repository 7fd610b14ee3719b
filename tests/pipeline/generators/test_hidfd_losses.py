"""HiDFD losses equal loops over the formulas; bad shapes are refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from pipeline.generators import _hidfd_losses as losses
from pipeline.generators._hidfd_losses import LossError

CLASSES = torch.tensor([0, 2, 1, 2])


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_hinge_equals_a_loop() -> None:
    real, fake = normal(5), normal(4, seed=1)
    expected = sum(max(0.0, 1 - score) for score in real.tolist()) / 5
    expected += sum(max(0.0, 1 + score) for score in fake.tolist()) / 4
    assert losses.hinge_discriminator(real, fake).item() == pytest.approx(expected)
    assert losses.hinge_generator(fake).item() == pytest.approx(-sum(fake.tolist()) / 4)
    assert losses.hinge_discriminator(torch.ones(3), -torch.ones(3)).item() == 0


def test_adc_equals_a_loop() -> None:
    real, fake = normal(4, 6), normal(4, 6, seed=1)

    def loss(row: Tensor, index: int) -> float:
        return -math.log(math.exp(row[index]) / sum(math.exp(logit) for logit in row))

    triples = list(zip(real, fake, CLASSES.tolist(), strict=True))
    expected = sum(loss(r, 2 * y) + loss(f, 2 * y + 1) for r, f, y in triples) / 4
    actual = losses.adc_discriminator(real, CLASSES, fake, CLASSES)
    assert actual.item() == pytest.approx(expected)
    expected = sum(loss(f, 2 * y) - loss(f, 2 * y + 1) for _, f, y in triples) / 4
    assert losses.adc_generator(fake, CLASSES).item() == pytest.approx(expected)


def test_features_equal_a_loop() -> None:
    t_real, d_real, t_fake, d_fake = (normal(3, 4, seed=seed) for seed in range(4))

    def mean_distance(first: Tensor, second: Tensor) -> float:
        rows = zip(first.tolist(), second.tolist(), strict=True)
        return sum(math.dist(a, b) for a, b in rows) / len(first)

    features = t_real, d_real, t_fake, d_fake
    assert losses.transfer(*features).item() == pytest.approx(
        mean_distance(t_real, d_real) + mean_distance(t_fake, d_fake)
    )
    assert losses.blend(*features).item() == pytest.approx(
        mean_distance(t_real, d_fake) + mean_distance(t_fake, d_real)
    )
    assert losses.transfer(t_real, t_real, t_fake, t_fake).item() == 0
    equal = d_real.float().requires_grad_()
    losses.distance(equal, equal.detach()).backward()
    assert equal.grad is not None
    assert torch.isfinite(equal.grad).all(), "the gradient of the norm is finite at zero"


def test_frequency_is_the_weighted_entropy_of_the_mean_prediction() -> None:
    logits, weights = normal(6, 3), torch.tensor([0.5, 1.5, 1.0], dtype=torch.float64)
    mean = [sum(row[k] for row in logits.softmax(1).tolist()) / 6 for k in range(3)]
    expected = sum(v * p * math.log(p) for v, p in zip(weights.tolist(), mean, strict=True))
    assert losses.frequency(logits, weights).item() == pytest.approx(expected)
    even = losses.frequency(torch.zeros(2, 3), torch.ones(3)).item()
    assert even == pytest.approx(-math.log(3))
    sure = torch.tensor([[80.0, 0, 0]]).repeat(4, 1).requires_grad_()
    worst = losses.frequency(sure, torch.ones(3))
    assert worst.item() == pytest.approx(0, abs=1e-6)
    worst.backward()
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all()


@pytest.mark.parametrize("index", range(6))
def test_gradients_match_finite_differences(index: int) -> None:
    x, y = normal(4, 6).requires_grad_(), normal(4, 6, seed=1).requires_grad_()
    weights = normal(6, seed=2).abs()
    calls: list[Callable[..., Tensor]] = [
        lambda a, b: losses.hinge_discriminator(a[:, 0], b[:, 0]),
        lambda a, b: losses.adc_discriminator(a, CLASSES, b, CLASSES),
        lambda a, b: losses.adc_generator(a, CLASSES) + b.sum() * 0,
        lambda a, b: losses.transfer(a, b, b * 2, a * 3),
        lambda a, b: losses.blend(a, b, b * 2, a * 3),
        lambda a, b: losses.frequency(a * b, weights),
    ]
    assert gradcheck(calls[index], (x, y))


def test_counts_are_halved_and_never_below_one() -> None:
    counts, new_counts = torch.tensor([1.0, 100.0, 1.0]), torch.tensor([0.0, 20.0, 300.0])
    assert losses.updated_counts(counts, new_counts).tolist() == [1.0, 60.0, 150.5]


def test_weights_match_the_formula_and_grow_with_rarity() -> None:
    counts, beta = torch.tensor([20.0, 5000.0, 300.0]), 0.9999
    effective = [(1 - beta**n) / (1 - beta) for n in counts.tolist()]
    total = sum(1 / number for number in effective)
    expected = [3 / number / total for number in effective]
    weights = losses.class_weights(counts, beta)
    assert weights.tolist() == pytest.approx(expected, rel=1e-5)
    assert weights.sum().item() == pytest.approx(3)
    assert weights[0] > weights[2] > weights[1]
    assert losses.class_weights(torch.ones(4), beta).tolist() == pytest.approx([1.0] * 4)


def test_the_beta_of_the_release_saturates_and_ours_does_not() -> None:
    counts = torch.tensor([1000.0, 10_000.0])
    release_weights = losses.class_weights(counts, 0.99)
    assert release_weights.tolist() == pytest.approx([1, 1], abs=1e-3)
    for beta in (0.9999, 1 - 1 / 11_000):
        weights = losses.class_weights(counts, beta)
        assert weights[0] / weights[1] > 5


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.hinge_discriminator(normal(3, 1), normal(3)),
        lambda: losses.hinge_generator(normal(3, 1)),
        lambda: losses.adc_generator(normal(4, 5), CLASSES),
        lambda: losses.adc_generator(normal(3, 6), CLASSES),
        lambda: losses.adc_discriminator(normal(4, 6), CLASSES, normal(4), CLASSES),
        lambda: losses.distance(normal(3, 4), normal(3, 5)),
        lambda: losses.transfer(normal(3, 4), normal(3, 4), normal(2, 4), normal(3, 4)),
        lambda: losses.blend(normal(3), normal(3), normal(3), normal(3)),
        lambda: losses.updated_counts(normal(3), normal(4)),
        lambda: losses.class_weights(normal(3, 1), 0.9),
        lambda: losses.class_weights(torch.ones(3), 1.0),
        lambda: losses.frequency(normal(3, 4), normal(3)),
    ],
)
def test_bad_arguments_raise(call: Callable[[], Tensor]) -> None:
    with pytest.raises(LossError):
        call()
