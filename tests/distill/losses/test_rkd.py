"""Distances and angles within a batch: loops, torch, invariances, blocks of anchors."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses import rkd
from distill.losses._precision import MIN_NORM
from distill.losses.rkd import rkd_angle, rkd_distance
from tests.support.reference import cosine, normal, weights_or_ones

both = pytest.mark.parametrize("loss", [rkd_distance, rkd_angle])
weighings = pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 0.0, 1.0]])
Loss = Callable[..., Tensor]


def huber(gap: float) -> float:
    return gap**2 / 2 if abs(gap) <= 1 else abs(gap) - 0.5


def slow_distances(x: Tensor, weights: list[float]) -> list[list[float]]:
    num = range(len(x))
    d = [[math.dist(x[i].tolist(), x[j].tolist()) for j in num] for i in num]
    pairs = [(i, j) for i in num for j in num if d[i][j] > 0]
    mean = sum(weights[i] * weights[j] * d[i][j] for i, j in pairs)
    mean /= sum(weights[i] * weights[j] for i, j in pairs)
    return [[value / mean for value in row] for row in d]


@weighings
def test_distance_equals_a_slow_loop(weights: list[float] | None) -> None:
    student, teacher = 9 * normal(5, 3), normal(5, 8, seed=1).pow(3)
    given, counted = weights_or_ones(weights, 5)
    s, t = slow_distances(student, counted), slow_distances(teacher, counted)
    for i, value in enumerate(rkd_distance(student, teacher, given).tolist()):
        others = [j for j in range(5) if j != i]
        total = sum(counted[j] * huber(s[i][j] - t[i][j]) for j in others)
        assert value == pytest.approx(total / sum(counted[j] for j in others))


@weighings
def test_angle_equals_a_slow_loop(weights: list[float] | None) -> None:
    student, teacher = normal(5, 3), normal(5, 8, seed=1)
    given, counted = weights_or_ones(weights, 5)
    for i, value in enumerate(rkd_angle(student, teacher, given).tolist()):
        total = weight = 0.0
        for j in range(5):
            for k in range(5):
                if len({i, j, k}) == 3:
                    s, t = (cosine(x[j] - x[i], x[k] - x[i]) for x in (student, teacher))
                    total += counted[j] * counted[k] * huber(s - t)
                    weight += counted[j] * counted[k]
        assert value == pytest.approx(total / weight)


def test_distance_equals_that_of_torch() -> None:
    student, teacher = normal(6, 3), normal(6, 8, seed=1)
    s, t = (x / x[x > 0].mean() for x in (torch.cdist(x, x) for x in (student, teacher)))
    # All pairs, including the B pairs of a row with itself.
    typed = F.smooth_l1_loss(s, t)
    torch.testing.assert_close(rkd_distance(student, teacher).mean() * 5 / 6, typed)


def test_angle_equals_that_of_torch() -> None:
    student, teacher = normal(6, 3), normal(6, 8, seed=1)
    edges = [F.normalize(x[None] - x[:, None], dim=2) for x in (student, teacher)]
    typed = F.smooth_l1_loss(*(e @ e.transpose(1, 2) for e in edges))
    torch.testing.assert_close(rkd_angle(student, teacher).mean() * (5 * 4) / 36, typed)


@both
def test_losses_ignore_rotation_shift_scale_and_width(loss: Loss) -> None:
    student, teacher = normal(5, 6), normal(5, 6, seed=1)
    turn, _ = torch.linalg.qr(normal(6, 6, seed=2))
    value = loss(student, teacher)
    torch.testing.assert_close(loss(3 * student @ turn + 7, 5 * teacher @ turn - 2), value)
    torch.testing.assert_close(loss(F.pad(student, (0, 9)), teacher), value)
    assert loss(2 * teacher @ turn + 1, teacher).abs().max() < 1e-12


@both
def test_the_scale_of_the_weights_does_not_matter(loss: Loss) -> None:
    student, teacher = normal(5, 6), normal(5, 6, seed=1)
    weights = torch.tensor([1.0, 0.5, 2.0, 0.3, 1.0], dtype=torch.float64)
    value = loss(student, teacher, weights)
    torch.testing.assert_close(loss(student, teacher, 7 * weights), value)


@both
def test_coinciding_rows_give_finite_losses(loss: Loss) -> None:
    student = normal(5, 6).float()
    student[1] = student[0]
    student[3:] = 0
    student.requires_grad_()
    value = loss(student, normal(5, 6, seed=1).float())
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().max() < 1 / MIN_NORM


def test_the_block_size_does_not_change_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, found = normal(7, 8, seed=1), []
    for numbers in (rkd.BLOCK, 1, 3 * 7 * 8):
        monkeypatch.setattr(rkd, "BLOCK", numbers)
        student = normal(7, 6).requires_grad_()
        value = rkd_angle(student, teacher)
        value.sum().backward()
        found.append((value.detach(), student.grad))
    for value, grad in found[1:]:
        torch.testing.assert_close((value, grad), found[0])


def test_equal_rows_do_not_count_in_the_mean_distance() -> None:
    student, teacher = normal(5, 3), normal(5, 8, seed=1)
    student[1], teacher[3] = student[0], teacher[0]
    s, t = slow_distances(student, [1.0] * 5), slow_distances(teacher, [1.0] * 5)
    wanted = [sum(huber(s[i][j] - t[i][j]) for j in range(5)) / 4 for i in range(5)]
    assert rkd_distance(student, teacher).tolist() == pytest.approx(wanted)


def test_a_direction_has_no_angle_with_itself() -> None:
    student, teacher = normal(3, 4), normal(3, 4, seed=1)
    student[1] = student[0]
    # At anchor 0 the only pair is (1, 2). The student has no direction to 1, so its cosine is 0.
    cos = cosine(teacher[1] - teacher[0], teacher[2] - teacher[0])
    assert rkd_angle(student, teacher)[0].item() == pytest.approx(huber(cos))


def test_a_batch_without_weighted_pairs_has_no_loss() -> None:
    weights = torch.tensor([0.0, 1.0, 0.0])
    assert (rkd_distance(normal(3, 4), normal(3, 4, seed=1), weights) == 0).all()


@both
def test_losses_stay_accurate_far_from_the_origin(loss: Loss) -> None:
    student, teacher = normal(30, 6).float(), normal(30, 6, seed=1).float()
    torch.testing.assert_close(
        loss(student + 1000, teacher), loss(student, teacher), rtol=0.01, atol=1e-4
    )
