"""Softened KL, also of z-scored logits: loops, torch, properties."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from distill.losses._precision import LossError
from distill.losses.kd import kd, standardized_kd, z_scored
from tests.support.reference import normal


def slow_kd(student: Tensor, teacher: Tensor, temperature: float) -> list[float]:
    values = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p = [math.exp(x / temperature) for x in t]
        q = [math.exp(x / temperature) for x in s]
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        values.append(temperature**2 * kl)
    return values


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_equals_a_slow_loop(temperature: float) -> None:
    student, teacher = normal(5, 7), normal(5, 7, seed=1)
    found = kd(student, teacher, temperature)
    assert found.tolist() == pytest.approx(slow_kd(student, teacher, temperature))
    typed = temperature**2 * F.kl_div(
        (student / temperature).log_softmax(1), (teacher / temperature).softmax(1), reduction="none"
    ).sum(1)
    torch.testing.assert_close(found, typed)


@given(st.integers(0, 1000), st.floats(0.05, 20.0))
@settings(max_examples=30, deadline=None)
def test_kd_has_the_properties_of_a_divergence(seed: int, temperature: float) -> None:
    student, teacher = normal(4, 6, seed=seed), normal(4, 6, seed=seed + 1)
    loss = kd(student, teacher, temperature)
    assert (loss >= -1e-9).all()
    assert kd(teacher, teacher, temperature).abs().max() < 1e-9
    torch.testing.assert_close(kd(student + 3, teacher - 5, temperature), loss)


def slow_standardized(student: list[float], teacher: list[float], temperature: float) -> float:
    soft = []
    for logits in (student, teacher):
        mean = sum(logits) / len(logits)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in logits) / (len(logits) - 1))
        powers = [math.exp((x - mean) / deviation / temperature) for x in logits]
        soft.append([power / sum(powers) for power in powers])
    total = sum(q * math.log(q / p) for p, q in zip(*soft, strict=True))
    return temperature**2 * total


def test_standardized_kd_equals_a_slow_loop() -> None:
    student, teacher = normal(5, 7), 3 * normal(5, 7, seed=1)
    typed = [
        slow_standardized(s, t, 2.0)
        for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    assert standardized_kd(student, teacher, 2.0).tolist() == pytest.approx(typed)


def test_standardized_kd_is_kd_of_z_scores() -> None:
    student, teacher = normal(5, 7), normal(5, 7, seed=1)
    typed = [(x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True) for x in (student, teacher)]
    torch.testing.assert_close(z_scored(student), typed[0])
    torch.testing.assert_close(standardized_kd(student, teacher, 2.0), kd(*typed, 2.0))


def test_scale_and_shift_of_either_side_do_not_matter() -> None:
    student, teacher = normal(5, 7), normal(5, 7, seed=1)
    loss = standardized_kd(student, teacher, 2.0)
    torch.testing.assert_close(standardized_kd(9 * student - 4, teacher / 5 + 1, 2.0), loss)
    assert standardized_kd(9 * teacher - 4, teacher, 2.0).abs().max() < 1e-12


@pytest.mark.parametrize(
    "call",
    [
        lambda: kd(normal(3, 4), normal(3, 5), 1.0),
        lambda: kd(normal(3, 4), normal(3, 4), 0.0),
        lambda: standardized_kd(normal(3, 4), normal(3, 5), 2.0),
        lambda: standardized_kd(normal(3, 1), normal(3, 1), 2.0),
        lambda: standardized_kd(normal(3, 4), normal(3, 4), 0.0),
    ],
)
def test_bad_arguments_raise(call: Callable[[], Tensor]) -> None:
    with pytest.raises(LossError):
        call()
