"""Soft relations: loops and invariances."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from distill.losses._precision import LossError
from distill.losses.relation_kl import relation_kl
from tests.support.reference import cosine, normal


def slow_relation(
    student: Tensor, teacher: Tensor, tau: float, weights: list[float]
) -> list[float]:
    values = []
    for i in range(len(student)):
        others = [j for j in range(len(student)) if j != i and weights[j] > 0]
        rows = []
        for x in (teacher, student):
            e = [weights[j] * math.exp(cosine(x[i], x[j]) / tau) for j in others]
            rows.append([value / sum(e) for value in e])
        values.append(sum(p * math.log(p / q) for p, q in zip(*rows, strict=True)))
    return values


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 0.0, 1.0]])
def test_relation_equals_a_slow_loop(weights: list[float] | None) -> None:
    student, teacher = normal(5, 3), normal(5, 8, seed=1)
    found = relation_kl(
        student,
        teacher,
        tau=0.4,
        weights_B=None if weights is None else torch.tensor(weights, dtype=torch.float64),
    )
    assert found.tolist() == pytest.approx(
        slow_relation(student, teacher, 0.4, weights or [1.0] * 5)
    )


def test_relation_ignores_rotation_and_scale() -> None:
    student, teacher = normal(5, 6), normal(5, 6, seed=1)
    turn, _ = torch.linalg.qr(normal(6, 6, seed=2))
    loss = relation_kl(student, teacher, tau=0.4)
    torch.testing.assert_close(relation_kl(student @ turn, 5 * teacher @ turn, tau=0.4), loss)
    assert (loss > 0).all()
    assert relation_kl(teacher @ turn, teacher, tau=0.4).abs().max() < 1e-12


@pytest.mark.parametrize(
    "call",
    [
        lambda: relation_kl(normal(3, 4), normal(3, 4), tau=-1.0),
    ],
)
def test_bad_arguments_raise(call: Callable[[], Tensor]) -> None:
    with pytest.raises(LossError):
        call()
