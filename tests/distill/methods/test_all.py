"""Every method: student families, small batches, gradients, presets, settings, deployment."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.config import make_recipe
from distill.method import Batch
from indexes.models.teacher import Teacher, load_teacher
from indexes.plugins import BadSetting, find, names, preset
from indexes.shards.reader import Shards
from tests.support.methods import make, make_batch
from tests.support.training import run, weights_of

World = tuple[Shards, Teacher]
METHODS = names("distill.methods")
pytestmark = pytest.mark.usefixtures("one_thread")
FAMILIES = [
    "timm:vit_tiny_patch16_224:depth=1:patch_size=8",
    "timm:convnext_atto:depths=[1,1,1,1]",
    "timm:mobilenetv3_small_050",
    "torchvision:shufflenet_v2_x0_5",
]


@pytest.mark.parametrize("student", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_every_family_of_students_trains(
    world: World, tmp_path: Path, method: str, student: str
) -> None:
    outcome = run(world, tmp_path, method, (student,), steps=2)[0]
    assert outcome.state == "finished"
    opened = load_teacher(outcome.directory)
    assert opened(torch.rand(2, 3, 32, 32))[2].shape == (2, 3)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_few_images_trains(world: World, tmp_path: Path, method: str) -> None:
    assert run(world, tmp_path, method, steps=2, recipe={"batch_size": 4})[0].state == "finished"


@pytest.mark.parametrize("method", METHODS)
def test_gradients_reach_the_student_and_never_the_teacher(world: World, method: str) -> None:
    one = make(world, method)
    batch = make_batch(world, one, 24)
    total = torch.stack(list(one.losses(batch, 0.5).values())).sum()
    torch.autograd.backward(total)
    trained = {name: p for name, p in one.named_parameters() if p.requires_grad}
    without = [name for name, p in trained.items() if p.grad is None or not p.grad.any()]
    assert not [name for name in without if "bn" not in name and "bias" not in name]
    assert all(p.grad is None for p in world[1].net.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_presets_are_valid_settings_of_their_method(method: str) -> None:
    module = find("distill.methods", method)
    known_names = list(getattr(module, "PRESETS", {}))
    for name in known_names:
        known = preset(module, name)
        assert isinstance(known.config, module.Config)
        recipe = make_recipe(known.recipe, {}, 50_000)
        assert recipe.steps > 1000, name
        assert make_recipe(known.recipe, {"steps": 7, "lr": 0.3}, 100).steps == 7
        assert make_recipe(known.recipe, {"epochs": 1.0}, 1024).steps < 20
    with pytest.raises(BadSetting, match=rf"{method} has no preset 'cifar10_r34_r81'.*Available"):
        preset(module, "cifar10_r34_r81")


@pytest.mark.parametrize("method", METHODS)
def test_settings_are_frozen_and_keyword_only(method: str) -> None:
    module = find("distill.methods", method)
    config = module.Config()
    for field in fields(config):
        with pytest.raises(FrozenInstanceError):
            setattr(config, field.name, getattr(config, field.name))
    with pytest.raises(TypeError):
        module.Config(*(getattr(config, field.name) for field in fields(config)))


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("eikd", {"prefer": "divergence"}),
        ("eikd", {"prefer": "margin"}),
        ("winnow", {"oversample": 2}),
    ],
)
def test_unlearned_images_are_selected_for_training(
    world: World, method: str, settings: dict[str, Any]
) -> None:
    one = make(world, method, **settings)
    batch = make_batch(world, one)
    # The student seems to have learned all images except the first three.
    logits = one.eval_logits(batch.pixels).detach()
    logits[:3] = -8 * logits[:3]
    batch = Batch(batch.pixels, batch.weights, logits, batch.features)
    assert one.oversample(one.config) == 2
    chosen = one.select_batch(batch, 0.5)
    assert len(chosen.pixels) == 6
    shown = {tuple(row) for row in chosen.pixels[:, :, 0, 0].tolist()}
    assert {tuple(row) for row in batch.pixels[:3, :, 0, 0].tolist()} <= shown
    weights = torch.tensor([0.0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 0])
    assert (one.select_batch(replace(batch, weights=weights), 0.5).weights > 0).all()


@pytest.mark.parametrize(
    ("method", "settings"),
    [("kd3", {}), ("hidfd", {}), ("winnow", {}), ("winnow", {"factor": 1, "depthwise": True})],
)
def test_the_deployed_net_is_complete(
    world: World, tmp_path: Path, method: str, settings: dict[str, Any]
) -> None:
    """The deployed net contains the encoder, the projector and the classifier of the teacher."""
    config = find("distill.methods", method).Config(**settings)
    outcome = run(world, tmp_path, method, config=config, steps=3)[0]
    weight, bias = world[1].head
    saved = weights_of(outcome.directory)
    assert torch.equal(saved["classifier.weight"], weight)
    assert torch.equal(saved["classifier.bias"], bias)
    assert {key.split(".")[0] for key in saved} == {"encoder", "projector", "classifier"}
    assert saved["projector.3.weight"].shape[1] == (
        1 if settings else len(saved["projector.3.weight"])
    )
    assert not [key for key in saved if key.startswith("encoder.fc")]
    assert outcome.agreement is not None


def test_alignment_is_the_mean_over_the_map(world: World) -> None:
    method = make(world, "hidfd", align=3.0, relative=False).eval()
    batch = make_batch(world, method)
    projected, _, _ = method.student(batch.pixels)
    distance = (projected - batch.teacher_map).square()
    size = batch.teacher_map.square().mean()
    torch.testing.assert_close(method.losses(batch, 0.0)["align"], 3 * distance.mean())
    for name, terms in (("hidfd", {"align"}), ("winnow", {"align", "kd"})):
        method = make(world, name, align=3.0).eval()
        losses = method.losses(batch, 0.0)
        assert losses.keys() == terms
        torch.testing.assert_close(losses["align"], 3 * distance.mean() / size)
    for relative, unit in ((True, size), (False, 1.0)):
        method = make(world, "kd3", align=1.0, contrast=0.0, relative=relative).eval()
        terms = method.losses(batch, 0.0)
        assert terms.keys() == {"align"}
        projected, _, logits = method.student(batch.pixels)
        w = torch.sigmoid((batch.logits - logits).norm(dim=1))
        typed = (w[:, None, None, None] * (projected - batch.teacher_map).square()).mean()
        torch.testing.assert_close(terms["align"], typed / unit)


@pytest.mark.parametrize("name", ["hidfd", "kd3", "winnow"])
def test_the_size_of_the_teachers_map_does_not_matter(world: World, name: str) -> None:
    """A student whose map is zero has the same loss for a teacher with larger activations."""
    method = make(world, name).eval()
    batch = make_batch(world, method)
    with torch.no_grad():
        for p in method.module.projector.parameters():
            p.zero_()
    before = method.losses(batch, 0.0)["align"]
    assert batch.features is not None
    larger = replace(batch, features=1000 * batch.features)
    torch.testing.assert_close(method.losses(larger, 0.0)["align"], before)


def test_a_plain_student_is_saved_without_the_projector(world: World, tmp_path: Path) -> None:
    config = find("distill.methods", "winnow").Config(deploy="plain")
    outcome = run(world, tmp_path, "winnow", config=config, steps=3)[0]
    plain = run(world, tmp_path / "kd", "kd", steps=3)[0]
    saved = weights_of(outcome.directory)
    assert saved.keys() == weights_of(plain.directory).keys()
    assert load_teacher(outcome.directory).card.builder.endswith("resnet8")
    method = make(world, "winnow", deploy="plain")
    batch = make_batch(world, method)
    torch.autograd.backward(method.losses(batch, 0.0)["align"])
    assert all(p.grad is not None for p in method.projector.parameters())
    assert method.student.head[0].grad is None  # the alignment does not train the classifier


def test_the_alignment_of_a_plain_student_fades(world: World) -> None:
    for deploy, weights in (("plain", (100.0, 50.0, 0.0)), ("reused", (100.0, 100.0, 100.0))):
        method = make(world, "winnow", deploy=deploy, align_frac=0.5).eval()
        batch = make_batch(world, method)
        terms = [method.losses(batch, progress) for progress in (0.0, 0.25, 0.5)]
        distance = terms[0]["align"] / 100
        for losses, weight in zip(terms, weights, strict=True):
            faded = losses.get("align", torch.tensor(0.0))
            torch.testing.assert_close(faded, weight * distance)
            torch.testing.assert_close(losses["kd"], terms[0]["kd"])


@pytest.mark.parametrize("deploy", ["reused", "plain"])
def test_a_stage_before_the_last_is_compared_but_not_saved(
    world: World, tmp_path: Path, deploy: str
) -> None:
    module = find("distill.methods", "winnow")
    whole = [
        run(world, tmp_path / str(stage), "winnow", config=config, steps=3)[0].directory
        for stage in (0.0, 1.0)
        for config in [module.Config(deploy=deploy, stage=stage)]
    ]
    first, second = (weights_of(directory) for directory in whole)
    assert first.keys() == second.keys()
    assert any(not torch.equal(first[key], second[key]) for key in first)
    method = make(world, "winnow", deploy=deploy, stage=2.0, oversample=2)
    assert not any(layer._forward_hooks for layer in world[1].net.module.modules())
    batch = method.select_batch(make_batch(world, method), 0.0)
    losses = method.losses(batch, 0.59)
    assert losses.keys() == {"align", "kd", "stage"}
    assert method.losses(batch, 0.6).keys() == {"align", "kd"}
    torch.autograd.backward(losses["stage"])
    body = method.module.encoder if deploy == "reused" else method.module
    assert all(p.grad is not None for p in body.layer2.parameters())
    assert all(p.grad is None for p in body.layer3.parameters())


def test_standardized_logits_have_a_free_scale(world: World) -> None:
    method = make(world, "kd", standardize=True, temperature=2.0, weight=9.0).eval()
    batch = make_batch(world, method)
    loss = method.losses(batch, 0.0)["kd"]
    scaled = method.losses(replace(batch, logits=5 * batch.logits + 1), 0.0)["kd"]
    torch.testing.assert_close(scaled, loss)
    weight, bias = method.student.head
    with torch.no_grad():
        weight.mul_(3)
        bias.mul_(3)
    torch.testing.assert_close(method.losses(batch, 0.0)["kd"], loss)


def test_dist_weighs_its_two_correlations(world: World) -> None:
    both = make(world, "dist").eval()
    batch = make_batch(world, both)
    terms = both.losses(batch, 0.0)
    assert terms.keys() == {"inter", "intra"}
    half = make(world, "dist", inter=1.0, intra=0.5).eval().losses(batch, 0.0)
    torch.testing.assert_close(half["inter"], terms["inter"] / 2)
    torch.testing.assert_close(half["intra"], terms["intra"] / 4)
