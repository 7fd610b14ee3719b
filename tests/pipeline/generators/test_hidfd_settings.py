"""Each setting that tells HiDFD's release from our default does what its name says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from indexes import checkpoint
from indexes.plugins import configure
from pipeline.generation.dataset import TrainingImages
from pipeline.generators import _biggan, hidfd
from pipeline.generators._hidfd_training import Training
from tests.support.generators import SIDE, TINY, World, same, start_training, train_to_end

pytestmark = pytest.mark.usefixtures("one_thread")


def last_weights(trainer: Training) -> dict[str, Tensor]:
    """Return the tensors of the generator as it is, spectral norm applied."""
    trainer.generator.eval()
    weights = _biggan.weights_as_applied(trainer.generator, trainer.average)
    trainer.generator.train()
    return {name: value.clone() for name, value in weights.items()}


def same_parameters(trainer: Training, first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    names = [name for name, _ in trainer.average.named_parameters()]
    return all(torch.equal(first[name], second[name]) for name in names)


@pytest.mark.parametrize("mirror", [True, False])
def test_real_images_are_mirrored_only_with_mirror(world: World, mirror: bool) -> None:
    trainer = start_training(*world, mirror=mirror)
    seen: list[Tensor] = []

    class Recording(TrainingImages):
        def view(self, rows_B: Tensor, mirrored_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            seen.append(mirrored_B)
            return super().view(rows_B, mirrored_B)

    images = trainer.images
    trainer.images = Recording(images.pixels, images.features, images.labels)
    for step in range(3):
        trainer.step(step)
    assert torch.cat(seen).unique().tolist() == ([0, 1] if mirror else [0])


@pytest.mark.parametrize("fresh_fakes", [True, False])
def test_fresh_fakes_train_each_net_on_other_images(world: World, fresh_fakes: bool) -> None:
    trainer = start_training(*world, fresh_fakes=fresh_fakes)
    batch = trainer.config.batch
    inputs: list[Tensor] = []
    passes: list[bool] = []
    trainer.discriminator.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    trainer.generator.register_forward_hook(lambda _, given, out: passes.append(out.requires_grad))
    terms = trainer.step(0)
    first, second = inputs[0][batch:], inputs[1]
    assert len(inputs) == 2
    assert len(second) == batch
    assert passes == ([False, True] if fresh_fakes else [True])
    assert torch.equal(first, second) != fresh_fakes
    assert {"frequency", "agree", "trans", "blend"} <= terms.keys()
    assert trainer.seen_C.sum() == batch, "the teacher counts each step's images once"


def test_the_average_is_a_copy_before_ema_start(world: World) -> None:
    trainer = start_training(*world, ema_start=3)
    for step in range(2):
        trainer.step(step)
        assert same_parameters(trainer, trainer.average.state_dict(), last_weights(trainer))
    before = {name: value.clone() for name, value in trainer.average.state_dict().items()}
    trainer.step(2)
    after, last = trainer.average.state_dict(), last_weights(trainer)
    for name, _ in trainer.average.named_parameters():
        torch.testing.assert_close(after[name], 0.9999 * before[name] + 0.0001 * last[name])
    assert not same_parameters(trainer, after, last)


def test_the_sampled_generator_is_the_averaged_or_the_last(world: World) -> None:
    for use_ema in (True, False):
        trainer = start_training(*world, use_ema=use_ema)
        for step in range(4):
            trainer.step(step)
        last, average = last_weights(trainer), trainer.average.state_dict()
        result = trainer.result()
        assert same_parameters(trainer, result, average if use_ema else last)
        assert not same_parameters(trainer, result, last if use_ema else average)
        trainer.step(4)  # nothing in the result's making disturbs the training


@pytest.mark.parametrize("use_ema", [True, False])
@pytest.mark.parametrize("standing_stats", [True, False])
def test_statistics_are_standing_or_running(
    world: World, standing_stats: bool, use_ema: bool
) -> None:
    settings: dict[str, Any] = {"use_ema": use_ema, "standing_stats": standing_stats}
    trainer = start_training(*world, ema_start=100, **settings)  # the average is a copy throughout
    for step in range(3):
        trainer.step(step)
    last, result = last_weights(trainer), trainer.result()
    layers = [
        name for name, net in trainer.average.named_modules() if isinstance(net, nn.BatchNorm2d)
    ]
    assert layers
    for layer in layers:
        for name in (f"{layer}.running_mean", f"{layer}.running_var"):
            assert torch.equal(result[name], last[name]) != standing_stats, name


def test_stretched_samples_have_the_full_range(world: World) -> None:
    result = start_training(*world).result()
    classes = torch.arange(6) % 3
    images = {}
    for stretch in (True, False):
        config = hidfd.Config(**{**TINY, "stretch": stretch})
        sample = hidfd.sampler(config, SIDE, 3, result, "cpu")
        images[stretch] = sample(classes, torch.Generator().manual_seed(0)).flatten(1)
    assert images[True].amin(1).tolist() == [0] * 6
    assert images[True].amax(1).tolist() == [255] * 6
    assert (images[False].amin(1) > 0).any()
    assert (images[False].amax(1) < 255).any()
    low, high = images[False].amin(1), images[False].amax(1)
    expected = (images[False] - low[:, None]) * (255 / (high - low)[:, None])
    torch.testing.assert_close(images[True].float(), expected, atol=3, rtol=0)


def test_a_faithful_training_resumes_bit_equal_and_samples(world: World, tmp_path: Path) -> None:
    settings = {**hidfd.PRESETS["faithful"], "epochs": 2 * TINY["batch"] / len(world[0])}

    def fresh() -> Training:
        return start_training(*world, **settings)

    whole = train_to_end(fresh(), tmp_path / "whole")
    trainer = fresh()
    assert trainer.steps == 2
    trainer.step(0)
    state = {"digest": "digest", "step": 1, "trainer": trainer.state_dict()}
    checkpoint.save(tmp_path / "cut", state)
    assert same(train_to_end(fresh(), tmp_path / "cut"), whole)
    assert not same(trainer.result(), whole)
    sample = hidfd.sampler(trainer.config, SIDE, 3, whole, "cpu")
    images = sample(torch.arange(6) % 3, torch.Generator().manual_seed(0))
    assert images.shape == (6, SIDE, SIDE, 3)
    assert images.amax() == 255


def test_settings_of_the_release_are_read_from_the_command_line() -> None:
    text = ["channels=biggan initial=normal feature_head=normed mirror=false fresh_fakes=true"]
    text += ["ema_start=1000 use_ema=false standing_stats=false stretch=true agree=0 pairs=batch"]
    faithful = configure(hidfd.Config, (), **hidfd.PRESETS["faithful"])
    assert configure(hidfd.Config, text) == faithful
