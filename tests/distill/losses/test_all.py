"""Properties of all losses: finite values and gradients, precision, independence of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import distill.losses
from distill.losses._precision import LossError
from tests.support.losses import CASES, Case
from tests.support.reference import normal

every = pytest.mark.parametrize("name", CASES)
relations = pytest.mark.parametrize("name", [name for name in CASES if CASES[name].relational])
pointwise = pytest.mark.parametrize("name", [n for n in CASES if not CASES[n].relational])

HUGE = 60000.0
"""Near the largest number of float16."""
EDGES = ["opposite", "equal", "like rows", "no student", "no teacher", "nothing", "one winner"]


def at_edge(edge: str, num: int, width: int) -> tuple[Tensor, Tensor]:
    """Return matrices [num, width] of a student and a teacher in float16."""
    student = HUGE * normal(num, width).sign().half()
    if edge == "opposite":
        return student, -student
    if edge == "equal":
        return student, student.clone()
    if edge == "like rows":
        return student[:1].repeat(num, 1), -student[:1].repeat(num, 1)
    if edge == "one winner":
        lone = torch.full((num, width), -HUGE, dtype=torch.float16)
        lone[:, 0] = HUGE
        return lone.flip(1), lone
    zero = torch.zeros_like(student)
    return (student if edge == "no teacher" else zero), (student if edge == "no student" else zero)


def assert_finite(case: Case, student: Tensor, teacher: Tensor, **options: Any) -> Tensor:
    leaf = student.float().requires_grad_()
    teacher = teacher if teacher.dtype == torch.float16 else teacher.float()
    loss = case(leaf, teacher, **options)
    loss.sum().backward()
    assert loss.shape == (len(student),)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss).all()
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
    return loss.detach()


def test_every_loss_has_a_case() -> None:
    folder = Path(distill.losses.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    assert files == {name.split("-")[0] for name in CASES}


@pytest.mark.parametrize("width", [2, 21841])
@pytest.mark.parametrize("edge", EDGES)
@every
def test_losses_are_finite_at_extreme_values(name: str, edge: str, width: int) -> None:
    case = CASES[name]
    loss = assert_finite(case, *at_edge(edge, 4, width), heat=0.05)
    if case.zero_when_equal and edge in ("equal", "nothing"):
        assert loss.abs().max() < 1e-5


@every
def test_losses_are_finite_on_the_smallest_batch(name: str) -> None:
    case = CASES[name]
    assert_finite(case, normal(case.least, 6), normal(case.least, 6, seed=1))
    for fewer in range(1, case.least):
        with pytest.raises(LossError, match=rf"at least {case.least} samples"):
            case(normal(fewer, 6), normal(fewer, 6, seed=1))


@every
def test_losses_keep_their_precision_under_autocast(name: str) -> None:
    student, teacher = normal(4, 6), normal(4, 6, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = assert_finite(CASES[name], student, teacher)
    assert torch.equal(inside, assert_finite(CASES[name], student, teacher))


@every
def test_gradients_match_finite_differences(name: str) -> None:
    student, teacher = normal(4, 6).requires_grad_(), normal(4, 6, seed=1)
    assert torch.autograd.gradcheck(lambda s: CASES[name](s, teacher), (student,))


@every
def test_losses_are_positive_and_zero_for_equal_inputs(name: str) -> None:
    case, student, teacher = CASES[name], normal(4, 6), normal(4, 6, seed=1)
    assert (case(student, teacher) > 0).all()
    equal = case(teacher, teacher)
    assert bool(equal.abs().max() < 1e-9) == case.zero_when_equal


@every
def test_the_order_of_a_batch_does_not_matter(name: str) -> None:
    student, teacher = normal(5, 6), normal(5, 6, seed=1)
    weights = normal(5, seed=2).abs() if CASES[name].relational else None
    order = torch.tensor([3, 0, 4, 1, 2])
    loss = CASES[name](student, teacher, weights_B=weights)
    turned = CASES[name](
        student[order], teacher[order], weights_B=None if weights is None else weights[order]
    )
    torch.testing.assert_close(turned, loss[order])


@pointwise
def test_the_loss_of_an_image_does_not_depend_on_the_batch(name: str) -> None:
    student, teacher = normal(4, 6), normal(4, 6, seed=1)
    loss = CASES[name](student, teacher)
    torch.testing.assert_close(CASES[name](student[:1], teacher[:1]), loss[:1])


@relations
def test_an_image_of_weight_zero_counts_as_absent(name: str) -> None:
    case, student, teacher = CASES[name], normal(6, 6), normal(6, 6, seed=1)
    weights = torch.tensor([0.0, 1.0, 0.5, 2.0, 1.0, 0.3], dtype=torch.float64)
    loss = case(student, teacher, weights_B=weights)
    absent = case(student[1:], teacher[1:], weights_B=weights[1:])
    torch.testing.assert_close(loss[1:], absent)
    student[0], teacher[0] = 100 * normal(6, seed=3), torch.zeros(6)
    torch.testing.assert_close(case(student, teacher, weights_B=weights)[1:], absent)


@relations
def test_weights_are_even_by_default(name: str) -> None:
    student, teacher = normal(5, 6), normal(5, 6, seed=1)
    loss = CASES[name](student, teacher, weights_B=torch.ones(5))
    torch.testing.assert_close(loss, CASES[name](student, teacher))


@pytest.mark.parametrize("weights", [[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
@relations
def test_an_image_without_partners_has_no_loss(name: str, weights: list[float]) -> None:
    loss = assert_finite(
        CASES[name], normal(4, 6), normal(4, 6, seed=1), weights_B=torch.tensor(weights)
    )
    assert loss[1] == 0
    if not any(weights):
        assert (loss == 0).all()


@every
def test_bad_shapes_raise_in_every_loss(name: str) -> None:
    case = CASES[name]
    with pytest.raises(LossError):
        case(normal(4, 6), normal(5, 6))
    with pytest.raises(LossError):
        case(normal(4), normal(4, 6))
    if case.relational:
        with pytest.raises(LossError, match=r"weights must be \[4\], not \[3\]"):
            case(normal(4, 6), normal(4, 6), weights_B=torch.ones(3))
