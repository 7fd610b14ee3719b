"""HiDFD trains without the defects of its release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from indexes.plugins import configure
from pipeline.generation.dataset import TrainingImages, teacher_view
from pipeline.generators import _hidfd_losses as losses
from pipeline.generators import hidfd
from tests.support.generators import (
    SIDE,
    TINY,
    World,
    start_training,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def slopes(one: torch.nn.Module, prefix: str) -> float:
    """Return the sum of the absolute gradients under a name."""
    found = [p.grad for name, p in one.named_parameters() if name.startswith(prefix)]
    return sum(float(grad.abs().sum()) for grad in found if grad is not None)


def test_feature_integration_trains_only_the_discriminator(world: World) -> None:
    """The release computes the loss without gradients."""
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


def test_counts_are_updated_and_weights_become_uneven(world: World) -> None:
    """The release never updates the counts: v stays 1."""
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


def test_the_teacher_gets_pixels_from_0_to_1_with_its_own_normalization(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release gives the teacher images in [-1, 1]."""
    _, teacher = world
    seen: list[Tensor] = []
    forward = type(teacher.net).__call__

    def note(self: Any, pixels: Tensor) -> Any:
        seen.append(pixels.detach())
        return forward(self, pixels)

    monkeypatch.setattr(type(teacher.net), "__call__", note)
    one = start_training(*world)
    seen.clear()
    one.generator.last.register_forward_hook(
        lambda net, given, out: out * 0 + 9
    )  # white, the upper end of tanh
    one.step(0)
    assert len(seen) == 1
    assert seen[0].shape == (TINY["batch"], 3, SIDE, SIDE)
    torch.testing.assert_close(seen[0], torch.ones_like(seen[0]))


def test_real_images_come_once_per_epoch_with_their_labels(world: World) -> None:
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


def test_another_side_and_rarer_teacher_passes_work(world: World, tmp_path: Path) -> None:
    one = start_training(*world, pixels=8, teacher_every=2, pairs="batch", epochs=1.0)
    first, second = one.step(0), one.step(1)
    assert {"frequency", "agreeing_frac"} <= first.keys()
    assert not {"frequency", "agreeing_frac"} & second.keys()
    assert {"trans", "blend"} <= second.keys()
    assert one.result()["last.weight"].isfinite().all()


def test_the_faithful_preset_uses_the_settings_of_the_paper() -> None:
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
