"""HiDFD losses: compared with loops and second implementations, properties, bad shapes."""

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
    wanted = sum(max(0.0, 1 - one) for one in real.tolist()) / 5
    wanted += sum(max(0.0, 1 + one) for one in fake.tolist()) / 4
    assert losses.hinge_discriminator(real, fake).item() == pytest.approx(wanted)
    assert losses.hinge_generator(fake).item() == pytest.approx(-sum(fake.tolist()) / 4)
    assert losses.hinge_discriminator(torch.ones(3), -torch.ones(3)).item() == 0


def test_adc_equals_a_loop() -> None:
    real, fake = normal(4, 6), normal(4, 6, seed=1)

    def loss(row: Tensor, place: int) -> float:
        return -math.log(math.exp(row[place]) / sum(math.exp(one) for one in row))

    triples = list(zip(real, fake, CLASSES.tolist(), strict=True))
    wanted = sum(loss(r, 2 * y) + loss(f, 2 * y + 1) for r, f, y in triples) / 4
    found = losses.adc_discriminator(real, CLASSES, fake, CLASSES)
    assert found.item() == pytest.approx(wanted)
    wanted = sum(loss(f, 2 * y) - loss(f, 2 * y + 1) for _, f, y in triples) / 4
    assert losses.adc_generator(fake, CLASSES).item() == pytest.approx(wanted)


def test_features_equal_a_loop() -> None:
    t_real, own_real, t_fake, own_fake = (normal(3, 4, seed=seed) for seed in range(4))

    def far(one: Tensor, other: Tensor) -> float:
        rows = zip(one.tolist(), other.tolist(), strict=True)
        return sum(math.dist(a, b) for a, b in rows) / len(one)

    both = t_real, own_real, t_fake, own_fake
    assert losses.transfer(*both).item() == pytest.approx(
        far(t_real, own_real) + far(t_fake, own_fake)
    )
    assert losses.blend(*both).item() == pytest.approx(
        far(t_real, own_fake) + far(t_fake, own_real)
    )
    assert losses.transfer(t_real, t_real, t_fake, t_fake).item() == 0
    equal = own_real.float().requires_grad_()
    losses.distance(equal, equal.detach()).backward()
    assert equal.grad is not None
    assert torch.isfinite(equal.grad).all(), "the norm has no gradient at zero"


def test_frequency_is_the_weighted_entropy_of_the_mean_prediction() -> None:
    logits, weights = normal(6, 3), torch.tensor([0.5, 1.5, 1.0], dtype=torch.float64)
    mean = [sum(row[k] for row in logits.softmax(1).tolist()) / 6 for k in range(3)]
    wanted = sum(v * p * math.log(p) for v, p in zip(weights.tolist(), mean, strict=True))
    assert losses.frequency(logits, weights).item() == pytest.approx(wanted)
    even = losses.frequency(torch.zeros(2, 3), torch.ones(3)).item()
    assert even == pytest.approx(-math.log(3))
    sure = torch.tensor([[80.0, 0, 0]]).repeat(4, 1).requires_grad_()
    worst = losses.frequency(sure, torch.ones(3))
    assert worst.item() == pytest.approx(0, abs=1e-6)
    worst.backward()
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all()


@pytest.mark.parametrize("which", range(6))
def test_gradients_match_finite_differences(which: int) -> None:
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
    assert gradcheck(calls[which], (x, y))


def test_counts_are_halved_and_never_below_one() -> None:
    counts, seen = torch.tensor([1.0, 100.0, 1.0]), torch.tensor([0.0, 20.0, 300.0])
    assert losses.updated_counts(counts, seen).tolist() == [1.0, 60.0, 150.5]


def test_weights_match_the_formula_and_grow_with_rarity() -> None:
    counts, beta = torch.tensor([20.0, 5000.0, 300.0]), 0.9999
    effective = [(1 - beta**n) / (1 - beta) for n in counts.tolist()]
    total = sum(1 / one for one in effective)
    wanted = [3 / one / total for one in effective]
    found = losses.class_weights(counts, beta)
    assert found.tolist() == pytest.approx(wanted, rel=1e-5)
    assert found.sum().item() == pytest.approx(3)
    assert found[0] > found[2] > found[1]
    assert losses.class_weights(torch.ones(4), beta).tolist() == pytest.approx([1.0] * 4)


def test_the_beta_of_the_release_saturates_and_ours_does_not() -> None:
    counts = torch.tensor([1000.0, 10_000.0])
    released = losses.class_weights(counts, 0.99)
    assert released.tolist() == pytest.approx([1, 1], abs=1e-3)
    for beta in (0.9999, 1 - 1 / 11_000):
        ours = losses.class_weights(counts, beta)
        assert ours[0] / ours[1] > 5


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
