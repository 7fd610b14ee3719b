"""KD3 against the formulas of its release, typed again: selection, alignment, contrast."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor

from distill.losses._maps import same_side
from distill.losses.ntxent import ntxent
from distill.losses.weighted_feature_mse import alignment_weight, weighted_feature_mse
from distill.methods._class_threshold import ClassThreshold, teacher_share
from distill.methods._mix_distribution import mix_distribution
from indexes.models.teacher import Teacher
from indexes.plugins import find, preset
from indexes.shards.reader import Shards
from tests.support.methods import make, make_batch
from tests.support.reference import normal

World = tuple[Shards, Teacher]
pytestmark = pytest.mark.usefixtures("one_thread")
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def release_alpha(epoch: int) -> float:
    """Epochs are counted from 1; the last positive value belongs to epoch 119."""
    return 1 - math.exp(-5 * ((epoch + 1) / 160 - 1) ** 2) if epoch < 120 else 0.0


def test_the_teachers_share_counts_epochs_from_one() -> None:
    ours = [teacher_share((epoch - 1) / 240, "faithful", 0.5) for epoch in range(1, 241)]
    assert ours == [release_alpha(epoch) for epoch in range(1, 241)]
    assert ours[0] == pytest.approx(0.9924, abs=5e-5)
    assert ours[118] == pytest.approx(0.268, abs=5e-4)
    assert not any(ours[119:])
    # All steps of an epoch have one share; the cut comes with the first step of epoch 120.
    assert teacher_share(118.99 / 240, "faithful", 0.5) == release_alpha(119)
    assert teacher_share(119 / 240, "faithful", 0.5) == 0


def release_kept(mixed: Tensor, tau: float) -> list[bool]:
    """Count predicted classes of the pool, then compare each confidence with its class's limit."""
    confidences, classes = mixed.softmax(1).max(1)
    predicted = classes.tolist()
    largest = max(predicted.count(k) for k in set(predicted))
    kept = []
    for confidence, k in zip(confidences.tolist(), predicted, strict=True):
        share = predicted.count(k) / largest
        kept.append(confidence > tau * (share / (2 - share)))
    return kept


@pytest.mark.parametrize("epoch", [1, 60, 119, 120])
def test_the_first_pool_passes_as_in_the_release(epoch: int) -> None:
    student, teacher = 3 * normal(400, 10), 6 * normal(400, 10, seed=1)
    teacher[:, 0] += 4  # a class that is much larger than the others
    alpha = teacher_share((epoch - 1) / 240, "faithful", 0.5)
    mixed = (teacher * alpha + student * (1 - alpha)).float()
    passes, _ = ClassThreshold(10, tau=0.95, floor=0.0, memory=100)(mixed)
    wanted = release_kept(mixed, 0.95)
    assert passes.bool().tolist() == wanted
    assert 0 < sum(wanted) < 400


def release_alignment(student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
    """Scale the squared differences of each image, then average over everything."""
    squares = (student - teacher) ** 2
    return torch.stack([squares[b] * weights[b] for b in range(len(weights))]).mean()


def test_the_weighted_alignment_and_its_gradient() -> None:
    student_logits, teacher_logits = normal(6, 10), 2 * normal(6, 10, seed=1)
    student_map, teacher_map = normal(6, 8, 4, 4, seed=2), normal(6, 8, 4, 4, seed=3)
    distance = [math.dist(s, t) for s, t in zip(
        student_logits.tolist(), teacher_logits.tolist(), strict=True)]  # fmt: skip
    weights = torch.tensor([1 / (1 + math.exp(-d)) for d in distance], dtype=torch.float64)
    ours = alignment_weight(student_logits, teacher_logits)
    torch.testing.assert_close(ours, weights, **EXACT)

    leaf, leaf_release = student_map.clone().requires_grad_(), student_map.clone().requires_grad_()
    loss = weighted_feature_mse(leaf, teacher_map, ours).mean()
    wanted = release_alignment(leaf_release, teacher_map, weights)
    torch.testing.assert_close(loss, wanted, **EXACT)
    (found,) = torch.autograd.grad(loss, leaf)
    (release,) = torch.autograd.grad(wanted, leaf_release)
    torch.testing.assert_close(found, release, **EXACT)


@pytest.mark.parametrize(("student_side", "teacher_side"), [(8, 4), (4, 8), (4, 4)])
def test_the_larger_map_is_pooled_to_the_smaller(student_side: int, teacher_side: int) -> None:
    student = normal(2, 3, student_side, student_side)
    teacher = normal(2, 5, teacher_side, teacher_side, seed=1)

    def halved(maps: Tensor, side: int) -> Tensor:
        if maps.shape[2] == side:
            return maps
        return (maps[..., ::2, ::2] + maps[..., 1::2, ::2] + maps[..., ::2, 1::2]
                + maps[..., 1::2, 1::2]) / 4  # fmt: skip

    side = min(student_side, teacher_side)
    found = same_side(student, teacher)
    torch.testing.assert_close(found[0], halved(student, side), **EXACT)
    torch.testing.assert_close(found[1], halved(teacher, side), **EXACT)


def test_mix_distribution_is_that_of_the_release() -> None:
    """The release divides by n - 1 and adds 1e-6 to the variance; only the latter can show."""
    pixels = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    partner = torch.tensor([2, 1, 4, 0, 3])
    share = torch.tensor([0.9, 0.2, 1.0, 0.0, 0.6], dtype=torch.float64)
    lam = share.view(5, 1, 1, 1)

    def release(added: float) -> Tensor:
        mean = pixels.mean((2, 3), keepdim=True)
        std = (pixels.var((2, 3), keepdim=True, correction=1) + added).sqrt()
        mixed_std = lam * std + (1 - lam) * std[partner]
        return (pixels - mean) / std * mixed_std + lam * mean + (1 - lam) * mean[partner]

    found = mix_distribution(pixels, partner, share)
    torch.testing.assert_close(found, release(0.0), **EXACT)
    torch.testing.assert_close(found, release(1e-6), rtol=1e-5, atol=1e-5)


def release_contrast(first: Tensor, second: Tensor, tau: float) -> Tensor:
    """The mean over 2B rows of -log(e^(own) / sum of e^(all rows but itself))."""
    rows = torch.cat([first, second])
    rows = rows / rows.norm(dim=1, keepdim=True)
    num = len(first)
    values = []
    for i in range(2 * num):
        cosines = rows @ rows[i] / tau
        others = torch.cat([cosines[:i], cosines[i + 1 :]]).exp().sum()
        values.append(-(cosines[(i + num) % (2 * num)].exp() / others).log())
    return torch.stack(values).mean()


def test_the_contrast_and_its_gradient() -> None:
    first, second = normal(5, 16), normal(5, 16, seed=1)
    leaf, leaf_release = first.clone().requires_grad_(), first.clone().requires_grad_()
    loss = ntxent(leaf, second, tau=0.3).mean()
    wanted = release_contrast(leaf_release, second, 0.3)
    torch.testing.assert_close(loss, wanted, **EXACT)
    (found,) = torch.autograd.grad(loss, leaf)
    (release,) = torch.autograd.grad(wanted, leaf_release)
    torch.testing.assert_close(found, release, **EXACT)


def test_both_terms_of_a_step_are_those_of_the_release(world: World) -> None:
    config = preset(find("distill.methods", "kd3"), "faithful").config
    one = make(world, "kd3", **asdict(config)).double()
    batch = make_batch(world, one)
    assert batch.features is not None
    batch = replace(batch, **{
        name: getattr(batch, name).double() for name in ("pixels", "weights", "logits", "features")
    })  # fmt: skip
    maps: list[Tensor] = []
    embedded: list[Tensor] = []
    one.module.projector.register_forward_hook(lambda _, given, out: maps.extend((*given, out)))
    one.embed.register_forward_hook(lambda _, given, out: embedded.extend((*given, out)))
    terms = one.losses(batch, 0.0)
    encoded, projected = (maps[0], maps[1])

    weight, bias = (x.double() for x in world[1].head)
    logits = projected.mean((2, 3)) @ weight.T + bias
    weights = torch.sigmoid((logits - batch.logits).square().sum(1).sqrt()).detach()
    wanted = release_alignment(projected, batch.teacher_map, weights)
    torch.testing.assert_close(terms["align"], wanted, rtol=1e-6, atol=0.0)

    # The contrast embeds the mean of the encoder's map, before the projector, by one Linear.
    first_given, first, other_given, other = embedded
    torch.testing.assert_close(first_given, encoded.mean((2, 3)), rtol=1e-6, atol=1e-6)
    assert one.embed.weight.shape == (128, encoded.shape[1])
    for given, out in ((first_given, first), (other_given, other)):
        typed = given.double() @ one.embed.weight.T + one.embed.bias
        torch.testing.assert_close(out, typed, **EXACT)
    wanted = 0.001 * release_contrast(first, other, 0.3)
    torch.testing.assert_close(terms["contrast"], wanted, **EXACT)


def test_the_contrast_trains_the_encoder_and_not_the_projector(world: World) -> None:
    one = make(world, "kd3", "mobilenetv2")
    torch.autograd.backward(one.losses(make_batch(world, one), 0.0)["contrast"])
    reached = {
        name.split(".")[0]
        for name, p in one.module.named_parameters()
        if p.grad is not None and p.grad.any()
    }
    assert reached == {"encoder"}
    assert one.embed.weight.grad.any()
