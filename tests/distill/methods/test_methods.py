"""What is each method's own: its choices, its heads, its forms, and published bugs it has not."""

from __future__ import annotations

import itertools
import math
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distill.config import make_recipe
from distill.method import Batch, MethodError, method_class
from distill.methods import eikd, kd3, odsd
from distill.methods._class_threshold import teacher_share, thresholds
from distill.methods._mix_distribution import mix_distribution
from distill.methods._noisy_labels import ACCURACY, LR
from distill.recipe import Mix
from indexes.models.net import build_net
from indexes.models.teacher import Teacher, load_teacher, save_teacher
from indexes.plugins import BadSetting, find, names, preset
from indexes.shards.reader import Shards
from tests.support import distillation
from tests.support.training import log_lines, run, same, weights_of

World = tuple[Shards, Teacher]
METHODS = names("distill.methods")
pytestmark = pytest.mark.usefixtures("one_thread")


def make(world: World, method: str, student: str = "resnet8", **settings: Any) -> Any:
    module = find("distill.methods", method)
    torch.manual_seed(0)
    net = build_net(student, num_classes=3, input_size=32)
    return method_class(module)(net, world[1], module.Config(**settings))


def make_batch(world: World, method: Any, num: int = 12, *, weights: Tensor | None = None) -> Batch:
    generator = torch.Generator().manual_seed(1)
    colors = torch.rand(num, 3, 1, 1, generator=generator)
    noise = torch.rand(num, 3, 32, 32, generator=generator)
    pixels = 0.7 * colors + 0.3 * noise
    taught, features, logits = world[1](pixels)
    needed = {"map": taught, "features": features, "logits": None}[method.needs(method.config)]
    return Batch(pixels, torch.ones(num) if weights is None else weights, logits, needed)


# --- every method, on student families that nobody here trained


FAMILIES = [
    "timm:vit_tiny_patch16_224:depth=1:patch_size=8",
    "timm:convnext_atto:depths=[1,1,1,1]",
    "timm:mobilenetv3_small_050",
    "torchvision:shufflenet_v2_x0_5",
]


@pytest.mark.parametrize("student", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_any_family_of_students(world: World, tmp_path: Path, method: str, student: str) -> None:
    outcome = run(world, tmp_path, method, (student,), steps=2)[0]
    assert outcome.state == "finished"
    opened = load_teacher(outcome.directory)
    assert opened(torch.rand(2, 3, 32, 32))[2].shape == (2, 3)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_few_images(world: World, tmp_path: Path, method: str) -> None:
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


def test_long_gradients_are_shortened(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = method_class(find("distill.methods", "hidfd"))
    moved = {}
    for limit in (math.inf, 1e3, 1e-6):
        monkeypatch.setattr(kind, "max_grad_norm", limit)
        directory = run(world, tmp_path / str(limit), "hidfd", steps=1)[0].directory
        moved[limit] = weights_of(directory)["projector.0.weight"]
        logged = [line.get("grad_norm") for line in log_lines(directory) if "terms" in line]
        assert all((norm is None) == math.isinf(limit) for norm in logged)
    assert torch.equal(moved[math.inf], moved[1e3])
    assert not torch.equal(moved[math.inf], moved[1e-6])


@pytest.mark.parametrize("method", METHODS)
def test_presets_are_settings_of_their_method(method: str) -> None:
    module = find("distill.methods", method)
    known_names = list(getattr(module, "PRESETS", {}))
    for name in known_names:
        known = preset(module, name)
        assert isinstance(known.config, module.Config)
        recipe = make_recipe(known.recipe, {}, 50_000)
        assert recipe.steps > 1000, name
        assert make_recipe(known.recipe, {"steps": 7, "lr": 0.3}, 100).steps == 7
        assert make_recipe(known.recipe, {"epochs": 1.0}, 1024).steps < 20
    if method != "kd":
        assert {"cifar10_r34_r18", "cifar10_wrn", "imagenet_r50_r18"} <= set(known_names)
    with pytest.raises(BadSetting, match=rf"{method} has no preset 'cifar10_r34_r81'.*There are"):
        preset(module, "cifar10_r34_r81")


# --- dfnd


def test_dfnd_learns_its_matrix_by_adam_alone(world: World, tmp_path: Path) -> None:
    one = make(world, "dfnd")
    before = one.noise.theta.detach().clone()
    own = one.own_optimizer()
    torch.autograd.backward(one.losses(make_batch(world, one), 0.0)["noise"])
    own.step()
    # Adam's first step is its learning rate, whatever the gradient.
    moved = (one.noise.theta.detach() - before).abs()
    assert moved.max().item() == pytest.approx(LR, rel=1e-3)


def test_dfnd_takes_the_accuracy_of_the_card(world: World, tmp_path: Path) -> None:
    assert make(world, "dfnd").noise.accuracy == ACCURACY
    assert make(world, "dfnd", accuracy=0.7).noise.accuracy == 0.7
    net = build_net("resnet8", num_classes=3)
    save_teacher(tmp_path, net, classes=distillation.CLASSES, input_size=32, accuracy=0.8)
    told = (world[0], load_teacher(tmp_path))
    assert make(told, "dfnd").noise.accuracy == 0.8


# --- odsd and eikd: every form of a doubtful choice


@pytest.mark.parametrize(
    ("low_noise", "relation"),
    list(itertools.product(("subspace", "transition"), ("soft", "infonce"))),
)
def test_forms_of_odsd(world: World, tmp_path: Path, low_noise: Any, relation: Any) -> None:
    config = odsd.Config(low_noise_form=low_noise, teacher_form=relation)
    outcome = run(world, tmp_path, "odsd", config=config, steps=3)[0]
    terms = [line["terms"] for line in log_lines(outcome.directory) if "terms" in line][-1]
    assert terms.keys() == {"total", "kd", "low_noise", "self", "teacher"}
    assert all(value > 0 for value in terms.values())


@pytest.mark.parametrize(
    "settings",
    [
        {"explicit_form": "map"},
        {"explicit_form": "attention"},
        {"implicit_form": "rkd"},
        {"implicit_form": "similarity"},
        {"form": "both", "keep": 2},
        {"form": "truncate", "keep": 2},
        {"mass": 0.9},
        {"prefer": "divergence"},
        {"prefer": "margin"},
    ],
)
def test_forms_of_eikd(world: World, tmp_path: Path, settings: dict[str, Any]) -> None:
    outcome = run(world, tmp_path, "eikd", config=eikd.Config(**settings), steps=3)[0]
    terms = [line["terms"] for line in log_lines(outcome.directory) if "terms" in line][-1]
    assert terms.keys() == {"total", "class_drop", "explicit", "implicit"}
    assert all(value > 0 for value in terms.values())


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("eikd", {"prefer": "divergence"}),
        ("eikd", {"prefer": "margin"}),
        ("winnow", {"oversample": 2}),
    ],
)
def test_what_is_not_learned_is_trained_on(
    world: World, method: str, settings: dict[str, Any]
) -> None:
    one = make(world, method, **settings)
    batch = make_batch(world, one)
    # As if the student had learned all but the first three images.
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


# --- kd3


def test_thresholds_follow_the_class_counts() -> None:
    found = thresholds(torch.tensor([10.0, 5.0, 1.0, 0.0]), 0.95, 0.0)
    typed = [0.95 * b / (2 - b) for b in (1.0, 0.5, 0.1, 0.0)]
    assert found.tolist() == pytest.approx(typed)
    assert thresholds(torch.tensor([10.0, 0.0]), 0.95, 0.3).tolist() == pytest.approx([0.95, 0.3])


def test_the_teachers_share_falls() -> None:
    smooth = [teacher_share(p / 100, "smooth", 2 / 3) for p in range(100)]
    assert smooth == sorted(smooth, reverse=True)
    assert smooth[0] == pytest.approx(1 - math.exp(-5))
    assert max(a - b for a, b in itertools.pairwise(smooth)) < 0.05
    assert smooth[-1] == 0
    release = [teacher_share(epoch / 240, "faithful", 2 / 3) for epoch in range(240)]
    typed = [1 - math.exp(-5 * ((e + 1) / 160 - 1) ** 2) if e < 120 else 0.0 for e in range(240)]
    assert release == pytest.approx(typed)
    assert release[119] == pytest.approx(0.27, abs=0.01)


def test_kd3_keeps_what_passes_the_threshold_of_its_class(world: World) -> None:
    one = make(world, "kd3", tau=0.9, tau_floor=0.0)
    batch = make_batch(world, one, 8)
    # Six of class 0, two of class 1: b = 1 and 1 / 3, thresholds .9 and .18; at progress 0 z is
    # the teacher's logits but for a part in 150.
    sure = torch.tensor([0.99, 0.85, 0.99, 0.5, 0.95, 0.6, 0.5, 0.6])
    classes = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    rest = ((1 - sure) / 2)[:, None].expand(8, 3).clone()
    logits = rest.scatter(1, classes[:, None], sure[:, None]).log()
    chosen = one.select_batch(Batch(batch.pixels, batch.weights, logits, batch.features), 0.0)
    kept = chosen.logits[chosen.weights > 0]
    assert len(chosen.logits) == 4
    passing = torch.tensor([0, 2, 4, 6, 7])
    assert {tuple(row) for row in kept.tolist()} <= {tuple(row) for row in logits[passing].tolist()}
    assert len(kept) == 4
    assert one.observed["kept_frac"].item() == pytest.approx(5 / 8)
    assert one.observed["classes"].tolist() == pytest.approx([6 / 8, 2 / 8, 0])
    assert one.class_threshold.counts_C.tolist() == [6, 2, 0]
    # As another class grows the first one's threshold falls with its share.
    one.class_threshold.counts_C.copy_(torch.tensor([1.0, 10_000.0, 0.0]))
    one.select_batch(Batch(batch.pixels, batch.weights, logits, batch.features), 0.0)
    assert one.observed["kept_frac"].item() == pytest.approx(6 / 8)


def test_images_that_do_not_pass_weigh_nothing(world: World) -> None:
    one = make(world, "kd3", tau=0.9, oversample=1)
    batch = make_batch(world, one, 8)
    logits = torch.zeros(8, 3)
    logits[:3, 0] = 20.0
    chosen = one.select_batch(Batch(batch.pixels, batch.weights, logits, batch.features), 0.0)
    assert sorted(chosen.weights.tolist()) == [0] * 5 + [1] * 3
    assert (chosen.logits[chosen.weights > 0].max(1).values == 20).all()


def test_kd3_logs_what_it_keeps_and_stops_where_nothing_passes(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = run(world, tmp_path / "a", "kd3", steps=3)[0].directory
    lines = [line for line in log_lines(directory) if "terms" in line]
    assert all(0 <= line["kept_frac"] <= 1 for line in lines)
    assert all(sum(line["classes"]) == pytest.approx(1) for line in lines)
    assert "kept_frac" in caplog.text
    config = kd3.Config(tau=0.5, tau_floor=3.0, memory=1)
    assert run(world, tmp_path / "b", "kd3", config=config, steps=3)[0].state == "refused"
    assert "pass its threshold: lower it with --set tau=0.25" in caplog.text
    one = make(world, "kd3")
    one.check({})
    one.class_threshold.kept_frac.zero_()
    with pytest.raises(MethodError):
        one.check({})


@pytest.mark.parametrize(
    ("method", "settings"),
    [("kd3", {}), ("hidfd", {}), ("winnow", {}), ("winnow", {"factor": 1, "depthwise": True})],
)
def test_what_is_deployed_is_whole(
    world: World, tmp_path: Path, method: str, settings: dict[str, Any]
) -> None:
    """Encoder, projector and the teacher's classifier: nothing else is needed to answer."""
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
    one = make(world, "hidfd", align=1.0).eval()
    batch = make_batch(world, one)
    found, _, _ = one.student(batch.pixels)
    typed = (found - batch.teacher_map).square().mean()
    torch.testing.assert_close(one.losses(batch, 0.0)["align"], typed)
    ours = make(world, "winnow", align=3.0).eval()
    found, _, _ = ours.student(batch.pixels)
    typed = 3 * (found - batch.teacher_map).square().mean() / batch.teacher_map.square().mean()
    terms = ours.losses(batch, 0.0)
    torch.testing.assert_close(terms["align"], typed)
    assert terms.keys() == {"align", "kd"}
    weighed = make(world, "kd3", align=1.0, contrast=0.0).eval()
    terms = weighed.losses(batch, 0.0)
    assert terms.keys() == {"align"}
    _, _, logits = weighed.student(batch.pixels)
    w = torch.sigmoid((batch.logits - logits).norm(dim=1))
    found, _, _ = weighed.student(batch.pixels)
    typed = (w[:, None, None, None] * (found - batch.teacher_map).square()).mean()
    torch.testing.assert_close(terms["align"], typed)


# --- MixDistribution


def test_mix_distribution_is_its_formula() -> None:
    pixels = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    partner, share = torch.tensor([1, 2, 0]), torch.tensor([0.3, 1.0, 0.0], dtype=torch.float64)
    found = mix_distribution(pixels, partner, share)
    for b, channel in itertools.product(range(3), range(3)):
        x, other = pixels[b, channel], pixels[partner[b], channel]
        lam = share[b]
        std = lam * x.std(correction=0) + (1 - lam) * other.std(correction=0)
        typed = (
            std * (x - x.mean()) / x.std(correction=0) + lam * x.mean() + (1 - lam) * other.mean()
        )
        torch.testing.assert_close(found[b, channel], typed)
    torch.testing.assert_close(found[1], pixels[1])
    # With none of its own: the partner's mean and spread.
    torch.testing.assert_close(found[2].mean((1, 2)), pixels[0].mean((1, 2)))
    torch.testing.assert_close(found[2].std((1, 2)), pixels[0].std((1, 2)))


def test_mix_distribution_commutes_with_a_normalization() -> None:
    pixels = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    partner, share = torch.tensor([3, 0, 1, 2]), torch.tensor([0.1, 0.5, 0.9, 0.4])
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])

    def normal(x: Tensor) -> Tensor:
        return (x - mean[:, None, None]) / std[:, None, None]

    torch.testing.assert_close(
        mix_distribution(normal(pixels), partner, share),
        normal(mix_distribution(pixels, partner, share)),
    )
    flat = torch.full((2, 3, 8, 8), 0.5)
    assert torch.isfinite(mix_distribution(flat, torch.tensor([1, 0]), torch.rand(2))).all()


# --- two shard sets in one training


def test_a_second_set_is_so_much_of_each_batch(world: World, tmp_path: Path) -> None:
    _, teacher = world
    images = [distillation.draw_image(number) for number in range(200, 230)]
    other = distillation.make_shards(tmp_path / "synthetic", teacher, 30, images=images)
    run(world, tmp_path / "alone")
    run(world, tmp_path / "mixed", mix=Mix(other, 0.5))
    run(world, tmp_path / "again", mix=Mix(other, 0.5), recipe={"views": 2})
    assert not same(tmp_path / "alone" / "resnet8", tmp_path / "mixed" / "resnet8")
    with pytest.raises(ValueError, match=r"mix_frac was 0\.5, is 0\.25"):
        run(world, tmp_path / "mixed", mix=Mix(other, 0.25))
    with pytest.raises(ValueError, match="mix_digest was"):
        run(world, tmp_path / "mixed")
    with pytest.raises(ValueError, match="between 0 and 1"):
        Mix(other, 1.0)


@pytest.mark.parametrize("method", METHODS)
def test_settings_are_frozen_and_keyword_only(method: str) -> None:
    module = find("distill.methods", method)
    config = module.Config()
    for field in fields(config):
        with pytest.raises(FrozenInstanceError):
            setattr(config, field.name, getattr(config, field.name))
    with pytest.raises(TypeError):
        module.Config(*(getattr(config, field.name) for field in fields(config)))
