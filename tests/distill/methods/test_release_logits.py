"""Two losses of logits against their releases, typed again with closed-form gradients.

Logit standardization (Sun et al., arXiv 2403.01427) and DIST (Huang et al., arXiv 2205.10536). The
cross-entropy with labels, which both add, is left out: there are no labels here.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.losses.dist import dist_inter, dist_intra
from distill.losses.kd import standardized_kd
from indexes.models.teacher import Teacher
from indexes.plugins import find, preset
from indexes.shards.reader import Shards
from tests.support.methods import make, make_batch
from tests.support.reference import normal

World = tuple[Shards, Teacher]
Array = NDArray[np.float64]
pytestmark = pytest.mark.usefixtures("one_thread")
EXACT = {"rtol": 1e-11, "atol": 1e-13}


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def z_scores(x: Array, added: float) -> Array:
    deviation = np.sqrt(((x - x.mean(1, keepdims=True)) ** 2).sum(1) / (x.shape[1] - 1))
    return np.asarray((x - x.mean(1, keepdims=True)) / (added + deviation)[:, None])


def release_standardized(s: Array, t: Array, temperature: float, added: float = 1e-7) -> float:
    """T^2 mean_B KL of the softened z-scores; the release adds 1e-7 to each deviation."""
    p, q = (softmax(z_scores(x, added) / temperature) for x in (s, t))
    return float(temperature**2 * (q * np.log(q / p)).sum(1).mean())


def release_dist(s: Array, t: Array, temperature: float, added: float = 1e-8) -> float:
    """T^2 (1 - mean r) over the rows, and over the columns; the release adds 1e-8 below."""
    p, q = softmax(s / temperature), softmax(t / temperature)

    def loss(a: Array, b: Array) -> float:
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return float(temperature**2 * (1 - ((a * b).sum(1) / (lengths + added)).mean()))

    return loss(p, q) + loss(p.T, q.T)


def numpy(x: Tensor) -> Array:
    return np.asarray(x.detach().double().numpy())


@pytest.mark.parametrize("num_classes", [10, 100])
def test_standardization_and_its_gradient(num_classes: int) -> None:
    student, teacher = 2 * normal(6, num_classes), 5 * normal(6, num_classes, seed=1)
    student.requires_grad_()
    loss = standardized_kd(student, teacher, 2.0).mean()
    s, t = numpy(student), numpy(teacher)
    assert loss.item() == pytest.approx(release_standardized(s, t, 2.0, added=0), rel=1e-12)
    assert loss.item() == pytest.approx(release_standardized(s, t, 2.0), rel=1e-6)
    # By z it is T (p - q) / B; z takes away the mean of that, and its part along z.
    z = z_scores(s, 0)
    by_z = 2.0 * (softmax(z / 2) - softmax(z_scores(t, 0) / 2)) / 6
    along = (by_z * z).sum(1, keepdims=True) / (num_classes - 1)
    wanted = (by_z - by_z.mean(1, keepdims=True) - along * z) / s.std(1, ddof=1, keepdims=True)
    (slope,) = torch.autograd.grad(loss, student)
    np.testing.assert_allclose(slope.numpy(), wanted, **EXACT)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_correlations_and_their_gradient(temperature: float) -> None:
    student, teacher = 2 * normal(6, 10), 5 * normal(6, 10, seed=1)
    student.requires_grad_()
    rows = dist_inter(student, teacher, temperature)
    loss = rows.mean() + dist_intra(student, teacher, temperature).mean()
    s, t = numpy(student), numpy(teacher)
    assert loss.item() == pytest.approx(release_dist(s, t, temperature, added=0), rel=1e-12)
    assert loss.item() == pytest.approx(release_dist(s, t, temperature), rel=1e-4)

    def by_first(a: Array, b: Array) -> Array:
        """The derivative of -mean r by the rows of `a`."""
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
        a_length, b_length = (np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        r = (a * b).sum(1, keepdims=True) / a_length / b_length
        return np.asarray((r * a / a_length - b / b_length) / a_length / len(a))

    p, q = softmax(s / temperature), softmax(t / temperature)
    by_p = temperature**2 * (by_first(p, q) + by_first(p.T, q.T).T)
    wanted = p * (by_p - (p * by_p).sum(1, keepdims=True)) / temperature
    (slope,) = torch.autograd.grad(loss, student)
    np.testing.assert_allclose(slope.numpy(), wanted, **EXACT)


def test_the_methods_have_the_published_weights(world: World) -> None:
    standardized = preset(find("distill.methods", "kd"), "standardized").config
    for method, settings in (("kd", asdict(standardized)), ("dist", {})):
        one = make(world, method, **settings)
        batch = make_batch(world, one)
        batch = replace(batch, logits=3 * batch.logits)
        terms = one.losses(batch, 0.0)
        s, t = (numpy(x) for x in (one.student(batch.pixels)[2], batch.logits))
        wanted = 9 * release_standardized(s, t, 2.0) if method == "kd" else (
            2 * release_dist(s, t, 4.0)
        )  # fmt: skip
        assert sum(term.item() for term in terms.values()) == pytest.approx(wanted, rel=1e-4)
