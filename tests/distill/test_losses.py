"""Each loss four ways: a slow double loop, the formula re-typed, properties, bad shapes."""

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
from distill.losses.kd import kd
from distill.losses.ntxent import ntxent
from distill.losses.relation_kl import relation_kl
from distill.losses.subspace import classifier_subspace, subspace


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def cosine(a: Tensor, b: Tensor) -> float:
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    norms = [math.sqrt(sum(x * x for x in v.tolist())) for v in (a, b)]
    return float(dot / (norms[0] * norms[1]))


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
def test_kd_is_its_formula(temperature: float) -> None:
    student, teacher = normal(5, 7), normal(5, 7, seed=1)
    found = kd(student, teacher, temperature)
    assert found.tolist() == pytest.approx(slow_kd(student, teacher, temperature))
    typed = temperature**2 * F.kl_div(
        (student / temperature).log_softmax(1), (teacher / temperature).softmax(1), reduction="none"
    ).sum(1)
    torch.testing.assert_close(found, typed)


@given(st.integers(0, 1000), st.floats(0.05, 20.0))
@settings(max_examples=30, deadline=None)
def test_kd_properties(seed: int, temperature: float) -> None:
    student, teacher = normal(4, 6, seed=seed), normal(4, 6, seed=seed + 1)
    loss = kd(student, teacher, temperature)
    assert (loss >= -1e-9).all()
    assert kd(teacher, teacher, temperature).abs().max() < 1e-9
    torch.testing.assert_close(kd(student + 3, teacher - 5, temperature), loss)


def test_kd_is_finite_at_the_edges() -> None:
    ends = torch.tensor([[60000.0, -60000.0, 0.0], [-60000.0, 60000.0, 0.0]], dtype=torch.float16)
    student = ends.float().requires_grad_()
    loss = kd(student, ends.flip(0), 0.05)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_kd_keeps_precision_under_autocast() -> None:
    student, teacher = normal(4, 6).float(), normal(4, 6, seed=1).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = kd(student, teacher, 4.0)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, kd(student, teacher, 4.0))


def test_subspace_is_its_formula() -> None:
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


def test_subspace_sees_only_the_subspace_and_directions() -> None:
    basis = classifier_subspace(normal(4, 8, seed=2), 2)
    student, teacher = normal(5, 8), normal(5, 8, seed=1)
    outside = torch.eye(8, dtype=torch.float64) - basis @ basis.T
    loss = subspace(student, teacher, basis)
    moved = subspace(student + normal(5, 8, seed=3) @ outside, 7 * teacher, basis)
    torch.testing.assert_close(moved, loss)
    assert subspace(teacher, teacher, basis).abs().max() < 1e-12


@pytest.mark.parametrize(("classes", "width"), [(4, 9), (10, 64), (2, 3)])
def test_full_rank_leaves_the_softmax(classes: int, width: int) -> None:
    weight, bias, features = normal(classes, width), normal(classes), normal(6, width, seed=3)
    basis = classifier_subspace(weight, classes - 1)
    torch.testing.assert_close(basis.T @ basis, torch.eye(classes - 1, dtype=torch.float64))
    full = (features @ weight.T + bias).softmax(1)
    torch.testing.assert_close((features @ basis @ basis.T @ weight.T + bias).softmax(1), full)
    if classes > 2:
        less = classifier_subspace(weight, classes - 2)
        poorer = (features @ less @ less.T @ weight.T + bias).softmax(1)
        assert (poorer - full).abs().max() > 1e-3


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
def test_ntxent_is_its_formula(weights: list[float] | None, classes: list[int] | None) -> None:
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


def test_ntxent_is_cross_entropy_over_the_others() -> None:
    first, second = normal(4, 6), normal(4, 6, seed=1)
    views = F.normalize(torch.cat([first, second]))
    scores = (views @ views.T / 0.3).fill_diagonal_(-torch.inf)
    partner = torch.arange(8).roll(4)
    typed = F.cross_entropy(scores, partner, reduction="none").view(2, 4).mean(0)
    torch.testing.assert_close(ntxent(first, second, tau=0.3), typed)
    torch.testing.assert_close(ntxent(second, 3 * first, tau=0.3), typed)
    assert ntxent(first, first, tau=0.3).sum() < typed.sum()


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
def test_relation_is_its_formula(weights: list[float] | None) -> None:
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


def test_relation_is_free_of_rotation_and_scale() -> None:
    student, teacher = normal(5, 6), normal(5, 6, seed=1)
    turn, _ = torch.linalg.qr(normal(6, 6, seed=2))
    loss = relation_kl(student, teacher, tau=0.4)
    torch.testing.assert_close(relation_kl(student @ turn, 5 * teacher @ turn, tau=0.4), loss)
    assert (loss > 0).all()
    assert relation_kl(teacher @ turn, teacher, tau=0.4).abs().max() < 1e-12


def test_relation_without_partners_is_zero() -> None:
    weights = torch.tensor([0.0, 1.0, 0.0])
    student = normal(3, 4).float().requires_grad_()
    loss = relation_kl(student, normal(3, 4, seed=1).float(), tau=0.1, weights_B=weights)
    loss.sum().backward()
    assert loss[1] == 0
    assert torch.isfinite(loss).all()
    assert torch.isfinite(student.grad).all()  # type: ignore[arg-type]


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kd": lambda s, t: kd(s, t, 2.0),
    "subspace": lambda s, t: subspace(
        s, t, classifier_subspace(normal(4, 6, seed=9), 2).to(s.dtype)
    ),
    "ntxent": lambda s, t: ntxent(s, t, tau=0.5),
    "relation_kl": lambda s, t: relation_kl(s, t, tau=0.5),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name: str) -> None:
    student, teacher = normal(4, 6).requires_grad_(), normal(4, 6, seed=1)
    assert torch.autograd.gradcheck(lambda s: LOSSES[name](s, teacher), (student,))


@pytest.mark.parametrize("name", LOSSES)
def test_dead_features_keep_finite_gradients(name: str) -> None:
    student = torch.zeros(4, 6, requires_grad=True)
    LOSSES[name](student, normal(4, 6, seed=1).float()).sum().backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: kd(normal(3, 4), normal(3, 5), 1.0),
        lambda: kd(normal(3, 4), normal(2, 4), 1.0),
        lambda: kd(normal(4), normal(4), 1.0),
        lambda: kd(normal(3, 4), normal(3, 4), 0.0),
        lambda: subspace(normal(3, 4), normal(3, 5), normal(4, 2)),
        lambda: subspace(normal(3, 4), normal(3, 4), normal(5, 2)),
        lambda: classifier_subspace(normal(4, 8), 4),
        lambda: classifier_subspace(normal(4, 8), 0),
        lambda: classifier_subspace(normal(4), 1),
        lambda: ntxent(normal(1, 4), normal(1, 4), tau=0.1),
        lambda: ntxent(normal(3, 4), normal(3, 5), tau=0.1),
        lambda: ntxent(normal(3, 4), normal(3, 4), tau=0.1, weights_B=normal(2)),
        lambda: ntxent(normal(3, 4), normal(3, 4), tau=0.1, classes_B=torch.zeros(2)),
        lambda: relation_kl(normal(1, 4), normal(1, 4), tau=0.1),
        lambda: relation_kl(normal(3, 4), normal(4, 4), tau=0.1),
        lambda: relation_kl(normal(3, 4), normal(3, 4), tau=-1.0),
        lambda: relation_kl(normal(3, 4), normal(3, 4), tau=0.1, weights_B=normal(2)),
    ],
)
def test_bad_arguments_raise(call: Callable[[], Tensor]) -> None:
    with pytest.raises(LossError):
        call()
