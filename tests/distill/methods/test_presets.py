"""Every preset: its nets and its method are built, and one step of its training is taken."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.config import make_recipe
from distill.data.augment import resolve_crop
from distill.method import Batch, method_class, total_loss
from distill.presets import HAM10000, IMAGENET, PAIRS, TINY, Preset, on_pairs
from distill.recipe import CROP_AREA
from distill.training.optim import learning_rate, make_optimizers, set_learning_rate
from indexes.models.card import Card
from indexes.models.net import build_net
from indexes.models.teacher import Teacher
from indexes.plugins import find, names

METHODS = [n for n in names("distill.methods") if hasattr(find("distill.methods", n), "PRESETS")]
NUM_IMAGES = 4
pytestmark = pytest.mark.usefixtures("one_thread")


def presets() -> Iterator[tuple[str, str, Preset]]:
    for method in METHODS:
        for name, preset in find("distill.methods", method).PRESETS.items():
            if preset.pair is not None:
                yield method, name, preset


def size_of(name: str) -> int:
    """A small size for the test: 16 pixels for the nets of small images, 64 for the others."""
    return 64 if PAIRS[name].data.input_size > TINY.input_size else 16


def cases() -> Iterator[Any]:
    """Yield (pair, method), pair by pair; those with a large student are slow, except a few."""
    for name, method in sorted((name, method) for method, name, _ in presets()):
        is_small = PAIRS[name].student.startswith("wrn") or method == "kd"
        is_quick = is_small or (name == "cifar10_r34_r18" and method != "winnow")
        slow = [] if is_quick else [pytest.mark.slow]
        yield pytest.param(name, method, marks=slow)


@functools.lru_cache(maxsize=1)
def teacher_and_batch(name: str) -> tuple[Teacher, dict[str, Any]]:
    """Build the pair's teacher with random weights; run it on a few images of noise."""
    pair, size = PAIRS[name], size_of(name)
    torch.manual_seed(0)
    net = build_net(pair.teacher, num_classes=pair.data.num_classes).eval()
    net.module.requires_grad_(False)
    classes = tuple(map(str, range(pair.data.num_classes)))
    card = Card(pair.teacher, {}, classes, net.mean, net.std, size, 1.0, "bilinear", "", None, "")
    pixels = torch.rand(NUM_IMAGES, 3, size, size)
    teacher = Teacher(card, Path("absent"), net)
    map_BDHW, features_BD, logits_BC = teacher(pixels)
    return teacher, {
        "pixels": pixels,
        "logits": logits_BC,
        "map": map_BDHW,
        "features": features_BD,
    }


@pytest.mark.parametrize(("name", "method"), list(cases()))
def test_a_step_of_every_preset(name: str, method: str) -> None:
    module = find("distill.methods", method)
    preset, (teacher, given) = module.PRESETS[name], teacher_and_batch(name)
    recipe = make_recipe(preset.recipe, {}, 50_000)
    student = build_net(preset.pair.student, num_classes=preset.pair.data.num_classes)
    learner = method_class(module)(student, teacher, preset.config).train()
    features = given.get(learner.needs(preset.config))
    batch = Batch(given["pixels"], torch.ones(NUM_IMAGES), given["logits"], features)
    own = learner.own_optimizer()
    optimizers = make_optimizers(
        learner,
        recipe.optimizer or learner.optimizer,
        own,
        weight_decay=recipe.weight_decay,
        decay_norms=recipe.decay_norms,
        nesterov=recipe.nesterov,
    )
    set_learning_rate(optimizers, 1e-4)
    before = [p.detach().clone() for p in learner.student.parameters() if p.requires_grad]
    total = total_loss(learner.losses(batch, 0.5))
    torch.autograd.backward(total)
    for optimizer in filter(None, (*optimizers.values(), own)):
        optimizer.step()
    assert math.isfinite(total.detach())
    after = [p.detach() for p in learner.student.parameters() if p.requires_grad]
    moved = [not torch.equal(old, new) for old, new in zip(before, after, strict=True)]
    assert any(moved)
    assert all(torch.isfinite(p).all() for p in after)


def test_the_wanted_pairs_exist_for_every_method() -> None:
    for method in METHODS:
        known = find("distill.methods", method).PRESETS
        for data in ("cifar10", "cifar100"):
            for nets in ("r34_r18", "vgg11_r18", "wrn40_2_wrn16_1", "wrn40_2_wrn40_1",
                         "wrn40_2_wrn16_2"):  # fmt: skip
                assert f"{data}_{nets}" in known
        assert {f"imagenet_r50_{student}" for student in ("r50", "r18", "mobilenetv2")} <= set(
            known
        )
        assert {f"{data}_r34_r18" for data in ("cinic10", "tinyimagenet", "ham10000")} <= set(known)


def test_every_figure_has_a_source_and_every_preset_notes() -> None:
    for method, name, preset in presets():
        assert preset.notes, (method, name)
        assert preset.expected is None or preset.source, (method, name)
        assert ("not measured" in preset.figure) == (preset.expected is None)
        assert preset.pair == PAIRS[name]


@pytest.mark.parametrize(
    ("method", "crop", "area", "drops", "steps"),
    [
        ("dfnd", "zeros", CROP_AREA, [30_472, 63_288], 77_352),
        ("kd3", "resized", 0.08, [281_250, 337_500, 393_750], 450_000),
        ("hidfd", "resized", 0.08, [4_500_000, 5_400_000, 6_300_000], 7_200_000),
    ],
)
def test_faithful_is_the_training_of_the_release(
    method: str, crop: str, area: float, drops: list[int], steps: int
) -> None:
    """DFND takes 33 epochs of 2,344 batches, and drops the rate after 13 and 27 epochs."""
    preset = find("distill.methods", method).PRESETS["faithful"]
    recipe = make_recipe(preset.recipe, {}, 1_920_000)
    assert recipe.steps == steps
    assert [round(share * steps) for share in recipe.drop_at or ()] == drops
    assert (recipe.nesterov, recipe.decay_norms, recipe.weight_decay) == (False, True, 5e-4)
    assert (recipe.warmup_frac, recipe.max_grad_norm) == (0.0, 0.0)
    assert (recipe.crop, recipe.crop_area) == (crop, area)
    assert learning_rate(0.0, recipe.lr, recipe.drop_at, recipe.warmup_frac) == recipe.lr
    assert "best epoch on the test set" in " ".join(preset.notes)


def test_dist_has_its_own_temperature_on_imagenet() -> None:
    presets = find("distill.methods", "dist").PRESETS
    assert presets["imagenet_r50_r18"].config.temperature == 1.0
    assert presets["cifar100_r34_r18"].config.temperature == 4.0
    assert list(presets) == list(on_pairs(Preset(config=None)))


def test_the_crop_of_a_preset_fits_its_images() -> None:
    for _, _, preset in presets():
        crop = make_recipe(preset.recipe, {}, 50_000).crop
        assert resolve_crop(crop, preset.pair.data.input_size) == crop or crop is None


@pytest.mark.parametrize("method", METHODS)
def test_the_head_of_a_method_states_paper_loss_cost_and_figure(method: str) -> None:
    text = find("distill.methods", method).__doc__
    for label in ("Paper: ", "L = ", "Cost: ", "Expected"):
        assert label in text, label
    assert re.search("SOURCE|OURS|REC", text)
    style = {"odsd": "ODSD-style", "eikd": "EIKD-style"}.get(method, "")
    assert text.startswith(style)


def test_imagenet_has_its_own_length() -> None:
    preset = Preset(config=None, recipe={"steps": 7, "lr": 0.3})
    figures = {"imagenet_r50_r18": (50.0, "a table: SOURCE")}
    made = on_pairs(preset, figures, {HAM10000: {"crop": "resized"}})
    assert (made["ham10000_r34_r18"].length, made["ham10000_r34_r18"].recipe["lr"]) == (
        "7 steps",
        0.3,
    )
    assert made["cifar10_r34_r18"].length == "7 steps"
    assert made["imagenet_r50_r18"].length == "120 epochs, batch 256"
    assert made["imagenet_r50_r18"].recipe["lr"] == 0.1
    assert made["imagenet_r50_r18"].recipe["weight_decay"] == 1e-4
    assert made["imagenet_r50_r18"].figure == "expected 50.00 % top-1 (a table: SOURCE)"
    assert list(made) == list(PAIRS)
    assert [name for name in made if made[name].pair.data is IMAGENET] == [
        name for name in PAIRS if name.startswith("imagenet_")
    ]
