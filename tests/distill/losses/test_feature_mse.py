"""Squared distances of features and maps: loops, torch, scale."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses._precision import LossError
from distill.losses.feature_mse import feature_mse
from tests.support.reference import cosine, normal

shapes = pytest.mark.parametrize("shape", [(5, 8), (5, 2, 3, 4)])


@shapes
def test_the_loss_equals_a_slow_loop(shape: tuple[int, ...]) -> None:
    student, teacher = normal(*shape), normal(*shape, seed=1)
    plain = feature_mse(student, teacher, normalized=False).tolist()
    directed = feature_mse(student, teacher, normalized=True).tolist()
    for row in range(5):
        s, t = student[row].flatten(), teacher[row].flatten()
        gaps = [(a - b) ** 2 for a, b in zip(s.tolist(), t.tolist(), strict=True)]
        assert plain[row] == pytest.approx(sum(gaps) / len(gaps))
        assert directed[row] == pytest.approx(2 - 2 * cosine(s, t))


@shapes
def test_the_loss_equals_that_of_torch(shape: tuple[int, ...]) -> None:
    student, teacher = normal(*shape), normal(*shape, seed=1)
    found = feature_mse(student, teacher, normalized=False)
    torch.testing.assert_close(found.mean(), F.mse_loss(student, teacher))
    directed = feature_mse(student, teacher, normalized=True)
    similar = F.cosine_similarity(student.flatten(1), teacher.flatten(1))
    torch.testing.assert_close(directed, 2 - 2 * similar)


@shapes
def test_the_normalized_loss_ignores_scale(shape: tuple[int, ...]) -> None:
    student, teacher = normal(*shape), normal(*shape, seed=1)
    directed = feature_mse(student, teacher, normalized=True)
    torch.testing.assert_close(feature_mse(3 * student, teacher / 7, normalized=True), directed)
    opposite = feature_mse(-teacher, teacher, normalized=True)
    torch.testing.assert_close(opposite, torch.full_like(opposite, 4.0))
    plain = feature_mse(student, teacher, normalized=False)
    torch.testing.assert_close(feature_mse(3 * student, 3 * teacher, normalized=False), 9 * plain)


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize(
    "call",
    [
        lambda n: feature_mse(normal(3, 4), normal(3, 5), normalized=n),
        lambda n: feature_mse(normal(3, 4), normal(3, 4, 1, 1), normalized=n),
        lambda n: feature_mse(normal(3, 4, 2, 2), normal(3, 4, 2, 3), normalized=n),
        lambda n: feature_mse(normal(3, 4, 2), normal(3, 4, 2), normalized=n),
    ],
)
def test_bad_shapes_raise(call: Callable[[bool], Tensor], normalized: bool) -> None:
    with pytest.raises(LossError):
        call(normalized)
