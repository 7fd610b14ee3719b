"""ODSD-style: its batch, its low-noise subspace, its relations, and every form left open."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.method import weighted_mean
from distill.methods import odsd
from distill.methods._principal_subspace import PrincipalSubspace
from distill.training.build import build_learners, build_setup
from indexes.models.net import build_net
from indexes.models.teacher import Teacher, load_teacher, save_teacher
from indexes.shards.reader import Shards
from tests.support import distillation
from tests.support.methods import make, make_batch
from tests.support.reference import normal
from tests.support.training import job, log_lines, run

World = tuple[Shards, Teacher]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("form", "views"), [("classes", 1), ("views", 2)])
def test_a_batch_counts_images(world: World, tmp_path: Path, form: Any, views: int) -> None:
    described = job(world, tmp_path, "odsd", config=odsd.Config(self_form=form))
    setup = build_setup(described, build_learners(described))
    (batch,) = setup.loader.steps(0, 1)
    assert len(set(batch.index.tolist())) == 16
    assert len(batch.pixels) == setup.num_views == 16 * views


@pytest.mark.parametrize("form", ["classes", "views"])
@pytest.mark.parametrize("relation", ["soft", "infonce"])
@pytest.mark.parametrize("low_noise", ["pca", "classifier", "transition"])
def test_every_form_trains(
    world: World, tmp_path: Path, low_noise: Any, relation: Any, form: Any
) -> None:
    config = odsd.Config(low_noise_form=low_noise, teacher_form=relation, self_form=form)
    outcome = run(world, tmp_path, "odsd", config=config, steps=3)[0]
    terms = [line["terms"] for line in log_lines(outcome.directory) if "terms" in line][-1]
    assert terms.keys() == {"total", "kd", "low_noise", "self", "teacher"}
    assert all(value > 0 for value in terms.values())


@pytest.mark.parametrize(("form", "is_known"), [("pca", False), ("classifier", True)])
def test_the_low_noise_term_is_not_a_function_of_the_logits(
    world: World, form: Any, is_known: bool
) -> None:
    """With the classifier's C - 1 directions, the compared features are linear in the logits."""
    method = make(world, "odsd", low_noise_form=form)
    batch = make_batch(world, method, 64)
    features = batch.teacher_features
    weight_CD, _ = world[1].head
    # Move the features only where no logit sees them.
    seen = torch.linalg.pinv(weight_CD) @ weight_CD
    scale = features.square().mean().sqrt()
    moved = features + scale * normal(*features.shape).float() @ (torch.eye(len(seen)) - seen)
    torch.testing.assert_close(moved @ weight_CD.T, features @ weight_CD.T, rtol=1e-3, atol=1e-3)
    first = method.losses(batch, 0.5)["low_noise"]
    second = method.losses(replace(batch, features=moved), 0.5)["low_noise"]
    assert (abs(first - second) < 1e-3 * first) == is_known


def test_the_principal_subspace_is_that_of_all_images_seen() -> None:
    scale = torch.tensor([8.0, 6.0, 4.0, 0.5, 0.4, 0.3])
    rotation = torch.linalg.qr(normal(6, 6).float()).Q
    rows = normal(400, 6, seed=1).float() * scale @ rotation + 5
    weights = normal(400, seed=2).float().abs()
    principal = PrincipalSubspace(6, 3)
    for part in range(0, 400, 40):
        principal.update(rows[part : part + 40], weights[part : part + 40])
    mean = weights @ rows / weights.sum()
    torch.testing.assert_close(principal.mean_D, mean)
    covariance = (rows - mean).T @ ((rows - mean) * weights[:, None]) / weights.sum()
    torch.testing.assert_close(principal.covariance_DD, covariance, rtol=1e-4, atol=1e-4)
    exact = torch.linalg.eigh(covariance).eigenvectors[:, -3:]
    overlap = torch.linalg.svdvals(exact.T @ principal.basis_DR)
    assert overlap.min() > 0.999
    torch.testing.assert_close(principal.basis_DR.T @ principal.basis_DR, torch.eye(3))


def test_an_image_of_weight_zero_does_not_move_the_subspace() -> None:
    principals = []
    for outlier in (0.0, 1e4):
        torch.manual_seed(0)
        principal = PrincipalSubspace(4, 2)
        rows = normal(8, 4).float()
        rows[3] += outlier
        principal.update(rows, torch.tensor([1.0, 1, 1, 0, 1, 1, 1, 1]))
        principals.append(principal)
    first, second = (principal.state_dict() for principal in principals)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_equal_features_keep_an_orthonormal_basis() -> None:
    principal = PrincipalSubspace(5, 3)
    principal.update(torch.ones(4, 5), torch.ones(4))
    torch.testing.assert_close(principal.basis_DR.T @ principal.basis_DR, torch.eye(3))


def test_several_processes_can_average_their_bases() -> None:
    """Bases of slightly different images keep their signs, so that their mean spans the same."""
    torch.manual_seed(0)
    first = PrincipalSubspace(40, 6)
    second = copy.deepcopy(first)
    scale = 0.8 ** torch.arange(40.0)
    for step in range(20):
        for rank, principal in enumerate((first, second)):
            rows = normal(64, 40, seed=2 * step + rank).float() * scale
            principal.update(rows, torch.ones(64))
        mean = (first.basis_DR + second.basis_DR) / 2
        assert torch.linalg.svdvals(mean).min() > 0.5
        for principal in (first, second):
            principal.basis_DR.copy_(mean)
    assert torch.linalg.svdvals(mean[:6]).min() > 0.9


def test_images_of_a_class_attract_each_other_in_an_embedding(world: World) -> None:
    method = make(world, "odsd", self_relation=1.0, ramp_frac=0.0)
    batch = make_batch(world, method)
    term = method.losses(batch, 0.5)["self"]
    kinds = [type(layer).__name__ for layer in method.embed]
    assert kinds == ["Linear", "ReLU", "Linear"]
    assert method.embed[-1].out_features == odsd.EMBEDDING
    torch.autograd.backward(term, retain_graph=True)
    assert all(p.grad is not None for p in method.embed.parameters())
    assert all(p.grad is None for p in method.to_teacher.parameters())
    _, features, _ = method.student(batch.pixels)
    typed = odsd.supervised_contrastive(
        method.embed(features), batch.logits.argmax(1), tau=0.1, weights_B=batch.weights
    )
    torch.testing.assert_close(term, weighted_mean(typed, batch.weights))


def test_the_matrix_of_label_errors_uses_the_accuracy_of_the_card(
    world: World, tmp_path: Path
) -> None:
    net = build_net("resnet8", num_classes=3)
    save_teacher(tmp_path, net, classes=distillation.CLASSES, input_size=32, accuracy=0.8)
    stated = (world[0], load_teacher(tmp_path))
    assert make(stated, "odsd", low_noise_form="transition").noise.accuracy == 0.8
