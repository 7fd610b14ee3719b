"""Similarity-preserving distillation: loops, the Frobenius norm of the paper, weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses.similarity_preserving import similarity_preserving
from tests.support.reference import normal, weights_or_ones


def slow_rows(x: Tensor, weights: list[float]) -> list[list[float]]:
    rows = []
    for a in x.tolist():
        gram = [sum(p * q for p, q in zip(a, b, strict=True)) for b in x.tolist()]
        norm = math.sqrt(sum(w * g * g for w, g in zip(weights, gram, strict=True)))
        rows.append([g / norm for g in gram])
    return rows


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 0.0, 1.0]])
def test_the_loss_equals_a_slow_loop(weights: list[float] | None) -> None:
    student, teacher = normal(5, 3), normal(5, 8, seed=1)
    given, counted = weights_or_ones(weights, 5)
    amount = sum(counted) ** 2 / sum(w * w for w in counted)
    s, t = slow_rows(student, counted), slow_rows(teacher, counted)
    for i, value in enumerate(similarity_preserving(student, teacher, given).tolist()):
        total = sum(w * (s[i][j] - t[i][j]) ** 2 for j, w in enumerate(counted))
        assert value == pytest.approx(total / amount)


@pytest.mark.parametrize("weight", [None, 1.0, 7.0])
def test_the_mean_loss_is_the_frobenius_norm(weight: float | None) -> None:
    student, teacher = normal(5, 3), normal(5, 8, seed=1)
    s, t = (F.normalize(x @ x.T, dim=1) for x in (student, teacher))
    typed = torch.linalg.matrix_norm(t - s).square() / 25
    weights = None if weight is None else torch.full((5,), weight)
    torch.testing.assert_close(similarity_preserving(student, teacher, weights).mean(), typed)


def test_the_loss_ignores_rotation_scale_and_width() -> None:
    student, teacher = normal(5, 6), normal(5, 6, seed=1)
    turn, _ = torch.linalg.qr(normal(6, 6, seed=2))
    loss = similarity_preserving(student, teacher)
    torch.testing.assert_close(similarity_preserving(3 * student @ turn, teacher / 9), loss)
    torch.testing.assert_close(similarity_preserving(F.pad(student, (0, 9)), teacher), loss)
    assert similarity_preserving(teacher @ turn, teacher).abs().max() < 1e-12
