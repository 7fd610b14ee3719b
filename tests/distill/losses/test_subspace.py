"""The low-noise representation; full rank keeps the softmax."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses._precision import LossError
from distill.losses.subspace import classifier_subspace, subspace
from tests.support.reference import cosine, normal


def test_subspace_matches_the_formula() -> None:
    student, teacher = normal(5, 8), normal(5, 8, seed=1)
    basis = classifier_subspace(normal(4, 8, seed=2), 2)
    for row, value in enumerate(subspace(student, teacher, basis).tolist()):
        a, b = (
            torch.stack([sum((x[row, d] * basis[d, r] for d in range(8)), x.new_zeros(()))
                         for r in range(2)]) for x in (student, teacher)
        )  # fmt: skip
        assert value == pytest.approx(2 - 2 * cosine(a, b))
    typed = (F.normalize(student @ basis) - F.normalize(teacher @ basis)).pow(2).sum(1)
    torch.testing.assert_close(subspace(student, teacher, basis), typed)


def test_subspace_depends_only_on_the_projection_and_directions() -> None:
    basis = classifier_subspace(normal(4, 8, seed=2), 2)
    student, teacher = normal(5, 8), normal(5, 8, seed=1)
    outside = torch.eye(8, dtype=torch.float64) - basis @ basis.T
    loss = subspace(student, teacher, basis)
    moved = subspace(student + normal(5, 8, seed=3) @ outside, 7 * teacher, basis)
    torch.testing.assert_close(moved, loss)
    assert subspace(teacher, teacher, basis).abs().max() < 1e-12


@pytest.mark.parametrize(("classes", "width"), [(4, 9), (10, 64), (2, 3)])
def test_full_rank_keeps_the_softmax(classes: int, width: int) -> None:
    weight, bias, features = normal(classes, width), normal(classes), normal(6, width, seed=3)
    basis = classifier_subspace(weight, classes - 1)
    torch.testing.assert_close(basis.T @ basis, torch.eye(classes - 1, dtype=torch.float64))
    full = (features @ weight.T + bias).softmax(1)
    torch.testing.assert_close((features @ basis @ basis.T @ weight.T + bias).softmax(1), full)
    if classes > 2:
        less = classifier_subspace(weight, classes - 2)
        poorer = (features @ less @ less.T @ weight.T + bias).softmax(1)
        assert (poorer - full).abs().max() > 1e-3


@pytest.mark.parametrize(
    "call",
    [
        lambda: subspace(normal(3, 4), normal(3, 5), normal(4, 2)),
        lambda: subspace(normal(3, 4), normal(3, 4), normal(5, 2)),
        lambda: classifier_subspace(normal(4, 8), 4),
        lambda: classifier_subspace(normal(4, 8), 0),
        lambda: classifier_subspace(normal(4), 1),
    ],
)
def test_bad_arguments_raise(call: Callable[[], Tensor]) -> None:
    with pytest.raises(LossError):
        call()
