"""Generators: they learn, resume bit-equal, and do not repeat the faults of HiDFD's release."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from indexes import checkpoint
from indexes.artifact import ArtifactError
from indexes.images.decode import Geometry, load_view, to_unit
from indexes.models.teacher import Teacher
from indexes.plugins import configure, find, names
from indexes.shards.reader import Shards
from pipeline.generation.dataset import TrainingImages, read_images, teacher_view
from pipeline.generation.train import WEIGHTS, fit_generator, read_generator
from pipeline.generators import _hidfd_losses as losses
from pipeline.generators import hidfd
from pipeline.generators._hidfd_training import Training
from tests.support.corpora import encoded, picture
from tests.support.generators import (
    SIDE,
    TINY,
    color_teacher,
    make_shards,
    start_training,
    train_to_end,
)

World = tuple[Shards, Teacher]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    place = tmp_path_factory.mktemp("world")
    teacher = color_teacher(place / "teacher")
    return make_shards(place / "shards", teacher), teacher


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def slopes(one: torch.nn.Module, prefix: str) -> float:
    """The summed size of the gradients under a name."""
    found = [p.grad for name, p in one.named_parameters() if name.startswith(prefix)]
    return sum(float(grad.abs().sum()) for grad in found if grad is not None)


@pytest.mark.parametrize("name", names("pipeline.generators"))
def test_every_generator_learns_resumes_bit_equal_and_samples(
    world: World, tmp_path: Path, name: str
) -> None:
    shards, teacher = world
    module = find("pipeline.generators", name)
    config = module.Config(**TINY)
    side = module.side(config, SIDE)
    seen = read_images(shards, teacher, side, "cpu")

    def fresh() -> Any:
        return module.trainer(config, seen, teacher, seed=0, device="cpu")

    whole = train_to_end(fresh(), tmp_path / "whole")
    steps = fresh().steps
    for cut_at in (1, steps - 1):
        place = tmp_path / f"cut-{cut_at}"
        one = fresh()
        one.steps = cut_at  # what was done before a kill
        for step in range(cut_at):
            one.step(step)
        checkpoint.save(place, {"digest": "digest", "step": cut_at, "trainer": one.state_dict()})
        assert same(train_to_end(fresh(), place), whole)
    other = module.trainer(config, seen, teacher, seed=1, device="cpu")
    assert not same(train_to_end(other, tmp_path / "other"), whole)
    sample = module.sampler(config, side, 3, whole, "cpu")
    pixels = sample(torch.arange(6) % 3, torch.Generator().manual_seed(0))
    assert pixels.shape == (6, side, side, 3)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, sample(torch.arange(6) % 3, torch.Generator().manual_seed(0)))


def test_a_signal_saves_and_the_log_has_named_terms(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_to_end(start_training(*world), tmp_path / "whole")
    one, step_of = start_training(*world), Training.step

    def struck(self: Training, number: int) -> dict[str, Tensor]:
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step_of(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", struck)
        with pytest.raises(KeyboardInterrupt):
            fit_generator(one, tmp_path / "cut", "digest")
    assert checkpoint.find_checkpoints(tmp_path / "cut")
    with pytest.raises(ArtifactError, match="of another training"):
        fit_generator(start_training(*world), tmp_path / "cut", "other")
    assert same(train_to_end(start_training(*world), tmp_path / "cut"), whole)
    lines = [json.loads(x) for x in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {"d_adv", "d_adc", "trans", "blend", "g_adv", "g_adc", "frequency"} <= set(
        lines[0]["terms"]
    )


def test_what_is_not_finite_stops_the_training(world: World, tmp_path: Path) -> None:
    one = start_training(*world, lr_generator=1e38)
    with pytest.raises(ValueError, match=r"not finite.*lr_generator"):
        fit_generator(one, tmp_path, "digest")
    assert not (tmp_path / WEIGHTS).exists()


def test_altered_weights_are_refused(world: World, tmp_path: Path) -> None:
    body = fit_generator(start_training(*world), tmp_path, "digest")
    path = tmp_path / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="not the file that its card describes"):
        read_generator(tmp_path, body)


def test_feature_integration_teaches_the_discriminator_and_nobody_else(world: World) -> None:
    """The release computes it without gradients."""
    _, teacher = world
    one = start_training(*world)
    before = {name: value.clone() for name, value in teacher.net.state_dict().items()}
    net = one.discriminator
    found: dict[str, float] = {}

    def note(which: str, terms: dict[str, Tensor]) -> None:
        if which == "discriminator":
            torch.autograd.backward(terms["trans"] + terms["blend"])
            found["head"], found["trunk"] = slopes(net, "features"), slopes(net, "blocks.0")
            found["others"] = slopes(net, "adversarial") + slopes(net, "adc")
            found["generator"] = slopes(one.generator, "")

    one._backward = note  # type: ignore[method-assign,assignment]
    one.step(0)
    assert found["head"] > 0
    assert found["trunk"] > 0
    assert found["others"] == found["generator"] == 0
    assert all(p.grad is None and not p.requires_grad for p in teacher.net.parameters())
    assert all(torch.equal(before[k], v) for k, v in teacher.net.state_dict().items())
    assert not teacher.net.module.training


def test_smoothing_reaches_the_generator_through_the_teacher(world: World) -> None:
    one = start_training(*world)
    found: dict[str, float] = {}

    def note(which: str, terms: dict[str, Tensor]) -> None:
        if which == "generator":
            torch.autograd.backward(terms["frequency"])
            found["generator"] = slopes(one.generator, "first")
            found["discriminator"] = slopes(one.discriminator, "")

    one._backward = note  # type: ignore[method-assign,assignment]
    one.step(0)
    assert found["generator"] > 0
    assert found["discriminator"] == 0
    assert all(p.requires_grad for p in one.discriminator.parameters())


def test_counts_are_updated_and_weights_leave_one(world: World) -> None:
    """In the release they never are: v stays 1."""
    one = start_training(*world, batch=24)
    for step in range(2):
        assert torch.equal(one.counts_C, torch.ones(3))
        one.step(step)
    assert one.counts_C.sum() > 3
    assert one.seen_C.sum() == 0
    weights = losses.class_weights(one.counts_C, one.config.beta)
    assert weights.sum().item() == pytest.approx(3)
    assert weights.max() - weights.min() > 0.1
    assert weights.argmax() == one.counts_C.argmin()


def test_the_teacher_sees_pixels_from_0_to_1_under_its_own_normalization(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release shows it images in [-1, 1]."""
    _, teacher = world
    seen: list[Tensor] = []
    forward = type(teacher.net).__call__

    def note(self: Any, pixels: Tensor) -> Any:
        seen.append(pixels.detach())
        return forward(self, pixels)

    monkeypatch.setattr(type(teacher.net), "__call__", note)
    one = start_training(*world)
    seen.clear()
    one.generator.last.register_forward_hook(lambda net, given, out: out * 0 + 9)  # tanh: white
    one.step(0)
    assert len(seen) == 1
    assert seen[0].shape == (TINY["batch"], 3, SIDE, SIDE)
    torch.testing.assert_close(seen[0], torch.ones_like(seen[0]))


def test_real_images_come_once_an_epoch_mirrored_or_not_with_the_teachers_word(
    world: World,
) -> None:
    shards, teacher = world
    one = start_training(*world, epochs=1.0)
    rows: list[Tensor] = []
    view = TrainingImages.view

    class Noted(TrainingImages):
        def view(self, rows_B: Tensor, mirrored_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            rows.append(rows_B)
            images, features, labels = view(self, rows_B, mirrored_B)
            pixels = teacher_view((images + 1) / 2, teacher.geometry)
            torch.testing.assert_close(teacher(pixels)[1], features, atol=0.05, rtol=0.05)
            return images, features, labels

    one.images = Noted(one.images.pixels, one.images.features, one.images.labels)
    for step in range(one.steps):
        one.step(step)
    assert torch.cat(rows).sort().values.tolist() == list(range(len(shards)))
    assert one.images.labels.tolist() == shards.columns["label"].tolist()


def test_another_side_than_the_teachers_and_rare_looks(world: World, tmp_path: Path) -> None:
    one = start_training(*world, pixels=8, teacher_every=2, pairs="batch", epochs=1.0)
    first, second = one.step(0), one.step(1)
    assert {"frequency", "agreeing_frac"} <= first.keys()
    assert not {"frequency", "agreeing_frac"} & second.keys()
    assert {"trans", "blend"} <= second.keys()
    assert one.result()["last.weight"].isfinite().all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("side", "size", "frac"), [(32, 32, 1.0), (16, 32, 0.875), (64, 24, 0.8)])
def test_the_teacher_sees_what_a_reader_of_the_file_would(
    interpolation: str, side: int, size: int, frac: float
) -> None:
    geometry = Geometry(size, frac, interpolation)
    wanted, _, _ = load_view(encoded(3, form="PNG", side=side), geometry)
    whole = to_unit(torch.from_numpy(np.array(picture(3, side=side)))[None])
    found = teacher_view(whole, geometry)[0].permute(1, 2, 0) * 255
    np.testing.assert_allclose(found.numpy(), wanted, atol=1.1)


def test_shards_of_another_teacher_are_refused(world: World, tmp_path: Path) -> None:
    other = color_teacher(tmp_path / "other", seed=6)
    with pytest.raises(ArtifactError, match="another teacher"):
        read_images(world[0], other, SIDE, "cpu")


@pytest.mark.parametrize("name", names("pipeline.generators"))
def test_presets_are_settings_of_their_generator(name: str) -> None:
    module = find("pipeline.generators", name)
    for preset in module.PRESETS.values():
        assert configure(module.Config, (), **preset) != module.Config()


def test_the_faithful_preset_has_nothing_of_ours() -> None:
    config = configure(hidfd.Config, (), **hidfd.PRESETS["faithful"])
    assert (config.agree, config.pairs, config.teacher_every) == (0, "batch", 1)
    assert (config.trans, config.blend, config.frequency) == (0.1, 0.1, 0.1)
    assert (config.batch, config.epochs, config.ema, config.beta) == (100, 400, 0.9999, 0.9999)
    assert config.lr_generator == config.lr_discriminator == 2e-4


@pytest.mark.parametrize(
    "bad",
    [{"width": 0}, {"batch": 1}, {"beta": 1.0}, {"ema": 1.0}, {"epochs": 0.0}, {"trans": -0.1},
     {"update_steps": 0}, {"teacher_every": 0}, {"frequency": float("nan")}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        hidfd.Config(**bad)
