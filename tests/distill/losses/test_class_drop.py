"""Class dropping: loops, torch, and how the three forms treat the dropped probability mass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distill.losses._precision import LossError
from distill.losses.class_drop import Form, class_drop
from distill.losses.kd import kd
from tests.support.reference import normal

forms = pytest.mark.parametrize("form", get_args(Form))


def slow_softmax(logits: list[float], temperature: float) -> list[float]:
    e = [math.exp(x / temperature) for x in logits]
    return [x / sum(e) for x in e]


def slow_kept(teacher: list[float], keep: int | None, mass: float | None) -> list[int]:
    order = sorted(range(len(teacher)), key=lambda c: -teacher[c])
    if keep is not None:
        return order[:keep]
    assert mass is not None
    sure, found = slow_softmax(teacher, 1.0), 0.0
    kept: list[int] = []
    while found < mass:
        kept.append(order[len(kept)])
        found += sure[kept[-1]]
    return kept


def slow_class_drop(
    student: list[float], teacher: list[float], temperature: float, kept: list[int], form: str
) -> float:
    p, q = slow_softmax(teacher, temperature), slow_softmax(student, temperature)
    rest = [max(0.0, 1 - sum(x[c] for c in kept)) for x in (p, q)]
    p, q = [p[c] for c in kept], [q[c] for c in kept]
    if form == "rest_bin":
        p, q = [*p, rest[0]], [*q, rest[1]]
    if form != "rest_bin":
        p = [x / sum(p) for x in p]
    if form == "both":
        q = [x / sum(q) for x in q]
    return temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize(("keep", "mass"), [(1, None), (3, None), (None, 0.5), (None, 0.9)])
@forms
def test_the_loss_equals_a_slow_loop(form: Form, keep: int | None, mass: float | None) -> None:
    student, teacher = normal(5, 7), 2 * normal(5, 7, seed=1)
    found = class_drop(student, teacher, temperature=4.0, keep=keep, mass=mass, form=form)
    rows = zip(student.tolist(), teacher.tolist(), strict=True)
    assert found.tolist() == pytest.approx(
        [slow_class_drop(s, t, 4.0, slow_kept(t, keep, mass), form) for s, t in rows]
    )


def test_the_loss_is_kd_over_fewer_bins() -> None:
    student, teacher = normal(5, 7), normal(5, 7, seed=1)
    found = {
        f: class_drop(student, teacher, temperature=2.0, keep=3, form=f) for f in get_args(Form)
    }
    order = teacher.argsort(1, descending=True)
    s, t = student.gather(1, order) / 2, teacher.gather(1, order) / 2
    # The logit of a bin is the logsumexp of its classes.
    binned = [torch.cat([x[:, :3], x[:, 3:].logsumexp(1, keepdim=True)], 1) for x in (s, t)]
    torch.testing.assert_close(found["rest_bin"], 4 * kd(binned[0], binned[1], 1.0))
    torch.testing.assert_close(found["both"], 4 * kd(s[:, :3], t[:, :3], 1.0))
    sure = t[:, :3].softmax(1)
    truncated = 4 * (sure * (sure.log() - s.log_softmax(1)[:, :3])).sum(1)
    torch.testing.assert_close(found["truncate"], truncated)


@pytest.mark.parametrize("kept", [{"keep": 6}, {"keep": 100}, {"mass": 1.0}])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@forms
def test_the_loss_is_kd_if_all_classes_are_kept(
    form: Form, dtype: torch.dtype, kept: dict[str, Any]
) -> None:
    student, teacher = normal(4, 6).to(dtype), (30 * normal(4, 6, seed=1)).to(dtype)
    found = class_drop(student, teacher, temperature=4.0, form=form, **kept)
    assert torch.equal(found, kd(student, teacher, 4.0))


@given(st.integers(0, 1000), st.integers(1, 6), st.floats(0.05, 20.0))
@settings(max_examples=30, deadline=None)
def test_fewer_bins_give_a_smaller_loss(seed: int, keep: int, temperature: float) -> None:
    student, teacher = normal(4, 6, seed=seed), normal(4, 6, seed=seed + 1)
    full = kd(student, teacher, temperature)
    loss = class_drop(student, teacher, temperature=temperature, keep=keep)
    assert (loss >= -1e-9).all()
    assert (loss <= full + 1e-9 * (1 + full)).all()
    moved = class_drop(student + 3, teacher - 5, temperature=temperature, keep=keep)
    torch.testing.assert_close(moved, loss)


@given(st.integers(0, 1000), st.floats(0.01, 0.99))
@settings(max_examples=30, deadline=None)
def test_the_most_likely_class_is_always_kept(seed: int, mass: float) -> None:
    teacher = 3 * normal(3, 6, seed=seed)
    student = torch.zeros_like(teacher, requires_grad=True)
    class_drop(student, teacher, temperature=1.0, mass=mass, form="truncate").sum().backward()
    # The truncated form raises a class only where it is kept.
    assert student.grad is not None
    for row, logits in enumerate(teacher.tolist()):
        kept = slow_kept(logits, None, mass)
        assert (len(kept) == 1) == (max(slow_softmax(logits, 1.0)) >= mass)
        lifted = set((student.grad[row] < 0).nonzero().flatten().tolist())
        assert kept[0] in lifted
        assert lifted <= set(kept)


def test_each_form_treats_the_dropped_mass_as_documented() -> None:
    teacher = normal(1, 30)
    order = teacher.argsort(1, descending=True)[0]
    true = (teacher / 4).softmax(1)[0, order[5:]].sum().item()
    masses = {}
    for form in get_args(Form):
        student = torch.zeros(1, 30, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([student], lr=1.0)
        for _ in range(800):
            optimizer.zero_grad()
            class_drop(student, teacher, temperature=4.0, keep=5, form=form).sum().backward()
            optimizer.step()
        masses[form] = (student.detach() / 4).softmax(1)[0, order[5:]].sum().item()
        if form == "both":
            assert student.grad is not None
            assert (student.grad[0, order[5:]] == 0).all()
    assert masses["rest_bin"] == pytest.approx(true, abs=1e-4)
    assert masses["truncate"] < 0.01
    assert abs(masses["both"] - true) > 0.01


@pytest.mark.parametrize("keep", [1, 2])
@forms
def test_an_underflowing_rest_is_finite(form: Form, keep: int) -> None:
    teacher = torch.tensor([[6e4, -6e4, -6e4], [6e4, 6e4, -6e4]], dtype=torch.float16)
    student = (-teacher.float()).requires_grad_()
    loss = class_drop(student, teacher, temperature=0.05, keep=keep, form=form)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: class_drop(normal(3, 4), normal(3, 5), temperature=1.0, keep=1),
        lambda: class_drop(normal(3, 4), normal(3, 4), temperature=0.0, keep=1),
        lambda: class_drop(normal(3, 4), normal(3, 4), temperature=1.0),
        lambda: class_drop(normal(3, 4), normal(3, 4), temperature=1.0, keep=1, mass=0.5),
        lambda: class_drop(normal(3, 4), normal(3, 4), temperature=1.0, keep=0),
        lambda: class_drop(normal(3, 4), normal(3, 4), temperature=1.0, mass=0.0),
        lambda: class_drop(normal(3, 4), normal(3, 4), temperature=1.0, mass=1.1),
        lambda: class_drop(normal(3, 4), normal(3, 4), temperature=1.0, keep=1, form="rest"),
    ],
)
def test_bad_arguments_raise(call: Callable[[], Tensor]) -> None:
    with pytest.raises(LossError):
        call()
