"""The contrast of classes: a slow loop, the formula typed again, and anchors without a positive."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses._precision import LossError
from distill.losses.supervised_contrastive import supervised_contrastive
from tests.support.reference import cosine, normal, weights_or_ones

CLASSES = [0, 1, 0, 0, 1, 2]


def slow(rows: Tensor, tau: float, weights: list[float]) -> list[float]:
    values = []
    for i in range(len(rows)):
        powers = [math.exp(cosine(rows[i], rows[j]) / tau) for j in range(len(rows))]
        others = [j for j in range(len(rows)) if j != i]
        below = sum(weights[j] * powers[j] for j in others)
        positives = [j for j in others if CLASSES[j] == CLASSES[i] and weights[j] > 0]
        total = sum(weights[j] for j in positives)
        terms = [-weights[j] / total * math.log(powers[j] / below) for j in positives]
        values.append(sum(terms))
    return values


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 0.0, 1.0, 1.0]])
def test_the_contrast_equals_a_slow_loop(weights: list[float] | None) -> None:
    rows = normal(6, 5)
    given, plain = weights_or_ones(weights, 6)
    loss = supervised_contrastive(rows, torch.tensor(CLASSES), tau=0.3, weights_B=given)
    assert loss.tolist() == pytest.approx(slow(rows, 0.3, plain))
    assert loss[5] == 0  # it has no other image of its class


def test_the_contrast_is_cross_entropy_with_one_positive_each() -> None:
    rows, classes = normal(4, 5), torch.tensor([0, 1, 1, 0])
    unit = F.normalize(rows)
    scores = (unit @ unit.T / 0.3).fill_diagonal_(-torch.inf)
    typed = F.cross_entropy(scores, torch.tensor([3, 2, 1, 0]), reduction="none")
    loss = supervised_contrastive(7 * rows, classes, tau=0.3)
    torch.testing.assert_close(loss, typed)


def test_images_of_a_class_that_lie_together_have_a_smaller_loss() -> None:
    classes = torch.tensor([0, 0, 1, 1])
    together, apart = torch.eye(4)[[0, 0, 1, 1]], torch.eye(4)[[0, 1, 0, 1]]
    near, far = (supervised_contrastive(x, classes, tau=0.1).sum() for x in (together, apart))
    assert near < 1e-3 < far


@pytest.mark.parametrize(
    "call",
    [
        lambda: supervised_contrastive(normal(1, 4), torch.zeros(1).long(), tau=0.1),
        lambda: supervised_contrastive(normal(3), torch.zeros(3).long(), tau=0.1),
        lambda: supervised_contrastive(normal(3, 4), torch.zeros(2).long(), tau=0.1),
        lambda: supervised_contrastive(normal(3, 4), torch.zeros(3), tau=0.1),
        lambda: supervised_contrastive(normal(3, 4), torch.zeros(3).long(), tau=0.0),
    ],
)
def test_bad_arguments_raise(call: Callable[[], Tensor]) -> None:
    with pytest.raises(LossError):
        call()
