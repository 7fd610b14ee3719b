"""NT-Xent: loops and cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses._precision import LossError
from distill.losses.ntxent import ntxent
from tests.support.reference import cosine, normal


def slow_ntxent(
    first: Tensor, second: Tensor, tau: float, weights: list[float], classes: list[int] | None
) -> list[float]:
    num, views = len(first), torch.cat([first, second])
    values = []
    for image in range(num):
        total = 0.0
        for anchor in (image, image + num):
            positive = math.exp(cosine(views[anchor], views[(anchor + num) % (2 * num)]) / tau)
            below = positive
            for other in range(2 * num):
                j = other % num
                if j == image or (classes is not None and classes[j] == classes[image]):
                    continue
                below += weights[j] * math.exp(cosine(views[anchor], views[other]) / tau)
            total -= math.log(positive / below)
        values.append(total / 2)
    return values


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 0.0]])
@pytest.mark.parametrize("classes", [None, [0, 1, 0, 2]])
def test_ntxent_equals_a_slow_loop(weights: list[float] | None, classes: list[int] | None) -> None:
    first, second = normal(4, 6), normal(4, 6, seed=1)
    found = ntxent(
        first,
        second,
        tau=0.3,
        weights_B=None if weights is None else torch.tensor(weights, dtype=torch.float64),
        classes_B=None if classes is None else torch.tensor(classes),
    )
    assert found.tolist() == pytest.approx(
        slow_ntxent(first, second, 0.3, weights or [1.0] * 4, classes)
    )


def test_ntxent_is_cross_entropy_over_the_other_images() -> None:
    first, second = normal(4, 6), normal(4, 6, seed=1)
    views = F.normalize(torch.cat([first, second]))
    scores = (views @ views.T / 0.3).fill_diagonal_(-torch.inf)
    partner = torch.arange(8).roll(4)
    typed = F.cross_entropy(scores, partner, reduction="none").view(2, 4).mean(0)
    torch.testing.assert_close(ntxent(first, second, tau=0.3), typed)
    torch.testing.assert_close(ntxent(second, 3 * first, tau=0.3), typed)
    assert ntxent(first, first, tau=0.3).sum() < typed.sum()


@pytest.mark.parametrize(
    "call",
    [
        lambda: ntxent(normal(3, 4), normal(3, 5), tau=0.1),
        lambda: ntxent(normal(3, 4), normal(3, 4), tau=0.0),
        lambda: ntxent(normal(3, 4), normal(3, 4), tau=0.1, classes_B=torch.zeros(2).long()),
    ],
)
def test_bad_arguments_raise(call: Callable[[], Tensor]) -> None:
    with pytest.raises(LossError):
        call()
