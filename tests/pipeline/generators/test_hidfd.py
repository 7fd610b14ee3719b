"""HiDFD trains without the defects of the code that its authors released."""

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


def gradient_sum(net: torch.nn.Module, prefix: str) -> float:
    """Return the sum of the absolute gradients of the parameters whose names have a prefix."""
    gradients = [p.grad for name, p in net.named_parameters() if name.startswith(prefix)]
    return sum(float(grad.abs().sum()) for grad in gradients if grad is not None)


def test_feature_integration_trains_only_the_discriminator(world: World) -> None:
    """The released code computes this loss without gradients."""
    _, teacher = world
    trainer = start_training(*world)
    before = {name: value.clone() for name, value in teacher.net.state_dict().items()}
    discriminator = trainer.discriminator
    gradients: dict[str, float] = {}

    def record(net_name: str, terms: dict[str, Tensor]) -> None:
        if net_name == "discriminator":
            torch.autograd.backward(terms["trans"] + terms["blend"])
            gradients["head"] = gradient_sum(discriminator, "features")
            gradients["trunk"] = gradient_sum(discriminator, "blocks.0")
            gradients["adversarial"] = gradient_sum(discriminator, "adversarial")
            gradients["adc"] = gradient_sum(discriminator, "adc")
            gradients["generator"] = gradient_sum(trainer.generator, "")

    trainer._backward = record  # type: ignore[method-assign,assignment]
    trainer.step(0)
    assert gradients["head"] > 0
    assert gradients["trunk"] > 0
    assert gradients["adversarial"] == gradients["adc"] == gradients["generator"] == 0
    assert all(p.grad is None and not p.requires_grad for p in teacher.net.parameters())
    assert all(torch.equal(before[k], v) for k, v in teacher.net.state_dict().items())
    assert not teacher.net.module.training


def test_smoothing_reaches_the_generator_through_the_teacher(world: World) -> None:
    trainer = start_training(*world)
    gradients: dict[str, float] = {}

    def record(net_name: str, terms: dict[str, Tensor]) -> None:
        if net_name == "generator":
            torch.autograd.backward(terms["frequency"])
            gradients["generator"] = gradient_sum(trainer.generator, "first")
            gradients["discriminator"] = gradient_sum(trainer.discriminator, "")

    trainer._backward = record  # type: ignore[method-assign,assignment]
    trainer.step(0)
    assert gradients["generator"] > 0
    assert gradients["discriminator"] == 0
    assert all(p.requires_grad for p in trainer.discriminator.parameters())


def test_counts_are_updated_and_weights_become_uneven(world: World) -> None:
    """The released code never updates the counts, so that the weights v stay 1."""
    trainer = start_training(*world, batch=24)
    for step in range(2):
        assert torch.equal(trainer.counts_C, torch.ones(3))
        trainer.step(step)
    assert trainer.counts_C.sum() > 3
    assert trainer.seen_C.sum() == 0
    weights = losses.class_weights(trainer.counts_C, trainer.config.beta)
    assert weights.sum().item() == pytest.approx(3)
    assert weights.max() - weights.min() > 0.1
    assert weights.argmax() == trainer.counts_C.argmin()


def test_the_teacher_gets_pixels_from_0_to_1_with_its_own_normalization(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The released code gives the teacher images in [-1, 1]."""
    _, teacher = world
    inputs: list[Tensor] = []
    forward = type(teacher.net).__call__

    def record(self: Any, pixels: Tensor) -> Any:
        inputs.append(pixels.detach())
        return forward(self, pixels)

    monkeypatch.setattr(type(teacher.net), "__call__", record)
    trainer = start_training(*world)
    inputs.clear()
    # The generator draws white images: 9 is at the upper end of tanh.
    trainer.generator.last.register_forward_hook(lambda net, arguments, out: out * 0 + 9)
    trainer.step(0)
    assert len(inputs) == 1
    assert inputs[0].shape == (TINY["batch"], 3, SIDE, SIDE)
    torch.testing.assert_close(inputs[0], torch.ones_like(inputs[0]))


def test_real_images_come_once_per_epoch_with_their_labels(world: World) -> None:
    shards, teacher = world
    trainer = start_training(*world, epochs=1.0)
    rows: list[Tensor] = []
    view = TrainingImages.view

    class Recording(TrainingImages):
        def view(self, rows_B: Tensor, mirrored_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            rows.append(rows_B)
            images, features, labels = view(self, rows_B, mirrored_B)
            pixels = teacher_view((images + 1) / 2, teacher.geometry)
            torch.testing.assert_close(teacher(pixels)[1], features, atol=0.05, rtol=0.05)
            return images, features, labels

    trainer.images = Recording(
        trainer.images.pixels, trainer.images.features, trainer.images.labels
    )
    for step in range(trainer.steps):
        trainer.step(step)
    assert torch.cat(rows).sort().values.tolist() == list(range(len(shards)))
    assert trainer.images.labels.tolist() == shards.columns["label"].tolist()


def test_another_side_and_rarer_teacher_passes_work(world: World, tmp_path: Path) -> None:
    trainer = start_training(*world, pixels=8, teacher_every=2, pairs="batch", epochs=1.0)
    first, second = trainer.step(0), trainer.step(1)
    assert {"frequency", "agreeing_frac"} <= first.keys()
    assert not {"frequency", "agreeing_frac"} & second.keys()
    assert {"trans", "blend"} <= second.keys()
    assert trainer.result()["last.weight"].isfinite().all()


def test_the_faithful_preset_uses_the_settings_of_the_paper() -> None:
    config = configure(hidfd.Config, (), **hidfd.PRESETS["faithful"])
    assert (config.agree, config.pairs, config.teacher_every) == (0, "batch", 1)
    assert (config.channels, config.initial, config.feature_head) == ("biggan", "normal", "normed")
    assert (config.mirror, config.fresh_fakes, config.stretch) == (False, True, True)
    assert (config.ema_start, config.use_ema, config.standing_stats) == (1000, False, False)
    assert (config.trans, config.blend, config.frequency) == (0.1, 0.1, 0.1)
    assert (config.batch, config.epochs, config.ema, config.beta) == (100, 400, 0.9999, 0.9999)
    assert config.lr_generator == config.lr_discriminator == 2e-4


@pytest.mark.parametrize(
    "bad",
    [{"width": 0}, {"batch": 1}, {"beta": 1.0}, {"ema": 1.0}, {"epochs": 0.0}, {"trans": -0.1},
     {"update_steps": 0}, {"teacher_every": 0}, {"ema_start": -1}, {"frequency": float("nan")}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        hidfd.Config(**bad)
