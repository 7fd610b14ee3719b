"""InfoNCE: loops, cross-entropy, weights and classes of the negatives."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses._precision import LossError
from distill.losses.infonce import infonce
from tests.support.reference import cosine, normal, weights_or_ones


def slow_infonce(
    anchors: Tensor, keys: Tensor, tau: float, weights: list[float], classes: list[int] | None
) -> list[float]:
    values = []
    for i in range(len(anchors)):
        own = math.exp(cosine(anchors[i], keys[i]) / tau)
        total = own
        for j in range(len(keys)):
            if j != i and (classes is None or classes[j] != classes[i]):
                total += weights[j] * math.exp(cosine(anchors[i], keys[j]) / tau)
        values.append(-math.log(own / total))
    return values


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 0.0]])
@pytest.mark.parametrize("classes", [None, [0, 1, 0, 2]])
def test_the_loss_equals_a_slow_loop(
    weights: list[float] | None, classes: list[int] | None
) -> None:
    anchors, keys = normal(4, 6), normal(4, 6, seed=1)
    given, counted = weights_or_ones(weights, 4)
    found = infonce(
        anchors,
        keys,
        tau=0.3,
        weights_B=given,
        classes_B=None if classes is None else torch.tensor(classes),
    )
    assert found.tolist() == pytest.approx(slow_infonce(anchors, keys, 0.3, counted, classes))


def test_the_loss_is_cross_entropy_over_the_keys() -> None:
    anchors, keys = normal(4, 6), normal(4, 6, seed=1)
    typed = F.cross_entropy(
        F.normalize(anchors) @ F.normalize(keys).T / 0.3, torch.arange(4), reduction="none"
    )
    torch.testing.assert_close(infonce(anchors, keys, tau=0.3), typed)


def test_the_loss_ignores_rotation_and_scale() -> None:
    anchors, keys = normal(4, 6), normal(4, 6, seed=1)
    turn, _ = torch.linalg.qr(normal(6, 6, seed=2))
    loss = infonce(anchors, keys, tau=0.3)
    torch.testing.assert_close(infonce(3 * anchors @ turn, 5 * keys @ turn, tau=0.3), loss)
    assert infonce(keys, keys, tau=0.3).sum() < loss.sum()


def test_a_single_class_leaves_no_negatives() -> None:
    same = torch.ones(4, dtype=torch.long)
    loss = infonce(normal(4, 6), normal(4, 6, seed=1), tau=0.3, classes_B=same)
    assert (loss == 0).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: infonce(normal(3, 4), normal(3, 5), tau=0.1),
        lambda: infonce(normal(3, 4), normal(3, 4), tau=0.0),
        lambda: infonce(normal(3, 4), normal(3, 4), tau=0.1, classes_B=torch.zeros(2).long()),
        lambda: infonce(normal(3, 4), normal(3, 4), tau=0.1, classes_B=torch.zeros(3)),
    ],
)
def test_bad_arguments_raise(call: Callable[[], Tensor]) -> None:
    with pytest.raises(LossError):
        call()
