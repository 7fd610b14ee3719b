"""DFND against the formulas of its release, typed again: the loss, its gradients, and Q."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from distill.losses.kd import kd
from distill.method import weighted_mean
from distill.methods._noisy_labels import NoisyLabels
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards
from tests.support.methods import make, make_batch
from tests.support.reference import normal

World = tuple[Shards, Teacher]
Array = NDArray[np.float64]
pytestmark = pytest.mark.usefixtures("one_thread")
B, C, T, ACCURACY = 6, 5, 4.0, 0.9


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def release_matrix(theta: Array, accuracy: float) -> Array:
    """Row k: the accuracy at k, and the softmax of its C - 1 parameters in the other places."""
    others = softmax(theta) * (1 - accuracy)
    num = len(theta)
    matrix = np.zeros((num, num))
    for k in range(num):
        matrix[k] = np.concatenate([others[k, :k], [accuracy], others[k, k:]])
    return matrix


def release_loss(s: Array, t: Array, matrix: Array) -> tuple[float, float]:
    """T^2 / B sum q (log q - log p), and the mean of -log (softmax(s) Q)_y."""
    p, q, y = softmax(s / T), softmax(t / T), t.argmax(1)
    matched = T**2 * (q * (np.log(q) - np.log(p))).sum() / len(s)
    likelihood = (softmax(s) @ matrix)[np.arange(len(s)), y]
    return float(matched), float(-np.log(likelihood).mean())


def release_gradients(s: Array, t: Array, theta: Array) -> tuple[Array, Array]:
    """The derivatives of the sum of both terms by s and by theta, worked out on paper."""
    y, p = t.argmax(1), softmax(s)
    matrix, others = release_matrix(theta, ACCURACY), softmax(theta)
    column = matrix[:, y].T  # [B, C]: the probability of label y under each class
    likelihood = (p * column).sum(1, keepdims=True)
    by_s = T * (softmax(s / T) - softmax(t / T)) + p - p * column / likelihood
    by_theta = np.zeros_like(theta)
    for b in range(len(s)):
        for k in range(len(theta)):
            if k == y[b]:
                continue  # the diagonal is constant
            at = y[b] - (y[b] > k)  # the place of class y among the others of row k
            own = np.eye(len(theta) - 1)[at]
            by_theta[k] -= p[b, k] / likelihood[b, 0] * (1 - ACCURACY) * (
                others[k, at] * (own - others[k])
            )  # fmt: skip
    return by_s / len(s), by_theta / len(s)


def test_the_loss_and_its_gradients() -> None:
    student, teacher = (2 * normal(B, C)).requires_grad_(), 3 * normal(B, C, seed=1)
    noise = NoisyLabels(C, ACCURACY).double()
    with torch.no_grad():
        noise.theta.copy_(normal(C, C - 1, seed=2))
    weights = torch.ones(B, dtype=torch.float64)
    matched = weighted_mean(kd(student, teacher, T), weights)
    noisy = weighted_mean(noise(student, teacher), weights)
    torch.autograd.backward(matched + noisy)

    s, t, theta = (x.detach().numpy() for x in (student, teacher, noise.theta))
    wanted = release_loss(s, t, release_matrix(theta, ACCURACY))
    assert (matched.item(), noisy.item()) == pytest.approx(wanted, rel=1e-12)
    by_s, by_theta = release_gradients(s, t, theta)
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), by_s, rtol=1e-12, atol=1e-14)
    assert noise.theta.grad is not None
    np.testing.assert_allclose(noise.theta.grad.numpy(), by_theta, rtol=1e-12, atol=1e-14)


def test_both_terms_have_weight_one(world: World) -> None:
    one = make(world, "dfnd", accuracy=0.8)
    batch = make_batch(world, one)
    terms = {name: term.item() for name, term in one.losses(batch, 0.0).items()}
    _, _, logits = one.student(batch.pixels)
    s, t = (x.detach().double().numpy() for x in (logits, batch.logits))
    matched, noisy = release_loss(s, t, release_matrix(np.zeros((3, 2)), 0.8))
    assert terms == pytest.approx({"kd": matched, "noise": noisy}, rel=1e-5)


def test_the_matrix_begins_even_and_moves_by_adam(world: World) -> None:
    one = make(world, "dfnd", accuracy=0.8)
    theta = one.noise.theta
    assert torch.equal(theta, torch.zeros(3, 2))
    own = one.own_optimizer()
    assert [p for group in own.param_groups for p in group["params"]] == [theta]
    first, second = np.zeros((3, 2)), np.zeros((3, 2))
    typed = np.zeros((3, 2))
    for step in range(1, 5):
        gradient = normal(3, 2, seed=step)
        theta.grad = gradient.float()
        own.step()
        g = gradient.numpy()
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        slope = np.sqrt(second) / math.sqrt(1 - 0.999**step) + 1e-8
        typed = typed - 1e-3 / (1 - 0.9**step) * first / slope
        np.testing.assert_allclose(theta.detach().numpy(), typed, rtol=1e-5)
