"""DIST: Pearson's correlation typed again, weights, and a class that does not vary."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from distill.losses._precision import LossError
from distill.losses.dist import dist_inter, dist_intra
from tests.support.reference import normal


def pearson(first: Sequence[float], second: Sequence[float], weights: Sequence[float]) -> float:
    total = sum(weights)
    a, b = (
        [x - sum(w * y for w, y in zip(weights, values, strict=True)) / total for x in values]
        for values in (first, second)
    )
    cross, left, right = (
        sum(w * x * y for w, x, y in zip(weights, *pair, strict=True))
        for pair in ((a, b), (a, a), (b, b))
    )
    return cross / math.sqrt(left * right)


def test_dist_equals_slow_correlations() -> None:
    student, teacher = normal(5, 4), normal(5, 4, seed=1)
    soft = [(x / 4).softmax(1) for x in (student, teacher)]
    pairs = zip(soft[0].tolist(), soft[1].tolist(), strict=True)
    typed = [16 * (1 - pearson(s, t, [1.0] * 4)) for s, t in pairs]
    assert dist_inter(student, teacher, 4.0).tolist() == pytest.approx(typed)
    for weights in ([1.0] * 5, [1.0, 0.5, 2.0, 0.0, 1.0]):
        columns = zip(soft[0].T.tolist(), soft[1].T.tolist(), strict=True)
        value = sum(16 * (1 - pearson(s, t, weights)) for s, t in columns) / 4
        loss = dist_intra(student, teacher, 4.0, weights_B=torch.tensor(weights).double())
        assert loss.tolist() == pytest.approx([value] * 5)


def test_correlations_are_those_of_numpy() -> None:
    student, teacher = normal(6, 3), normal(6, 3, seed=1)
    soft = [(x / 4).softmax(1) for x in (student, teacher)]
    rows = [torch.corrcoef(torch.stack([s, t]))[0, 1] for s, t in zip(*soft, strict=True)]
    torch.testing.assert_close(dist_inter(student, teacher, 4.0), 16 * (1 - torch.stack(rows)))
    columns = [torch.corrcoef(torch.stack([soft[0][:, c], soft[1][:, c]]))[0, 1] for c in range(3)]
    mean = 16 * (1 - torch.stack(columns)).mean()
    torch.testing.assert_close(dist_intra(student, teacher, 4.0), mean.expand(6))


def test_a_class_that_the_teacher_does_not_vary_adds_nothing() -> None:
    teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert dist_intra(torch.randn(3, 2), teacher, 4.0).tolist() == [0, 0, 0]
    assert dist_inter(torch.randn(3, 2), torch.zeros(3, 2), 4.0).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: dist_inter(normal(3, 4), normal(3, 5), 4.0),
        lambda: dist_inter(normal(3, 4), normal(3, 4), 0.0),
        lambda: dist_intra(normal(1, 4), normal(1, 4), 4.0),
        lambda: dist_intra(normal(3, 4), normal(3, 4), -1.0),
    ],
)
def test_bad_arguments_raise(call: Callable[[], Tensor]) -> None:
    with pytest.raises(LossError):
        call()
