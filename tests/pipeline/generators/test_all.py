"""Every generator learns, resumes bit-equal, samples, and has valid presets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from indexes import checkpoint
from indexes.plugins import configure, find, names
from pipeline.generation.dataset import read_images
from tests.support.generators import (
    SIDE,
    TINY,
    World,
    same,
    train_to_end,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", names("pipeline.generators"))
def test_every_generator_learns_resumes_bit_equal_and_samples(
    world: World, tmp_path: Path, name: str
) -> None:
    shards, teacher = world
    module = find("pipeline.generators", name)
    config = module.Config(**TINY)
    side = module.side(config, SIDE)
    images = read_images(shards, teacher, side, "cpu")

    def fresh() -> Any:
        return module.trainer(config, images, teacher, seed=0, device="cpu")

    full_run = train_to_end(fresh(), tmp_path / "whole")
    steps = fresh().steps
    for cut_at in (1, steps - 1):
        directory = tmp_path / f"cut-{cut_at}"
        trainer = fresh()
        trainer.steps = cut_at  # the number of steps before the interruption
        for step in range(cut_at):
            trainer.step(step)
        checkpoint.save(
            directory, {"digest": "digest", "step": cut_at, "trainer": trainer.state_dict()}
        )
        assert same(train_to_end(fresh(), directory), full_run)
    reseeded = module.trainer(config, images, teacher, seed=1, device="cpu")
    assert not same(train_to_end(reseeded, tmp_path / "other"), full_run)
    sample = module.sampler(config, side, 3, full_run, "cpu")
    pixels = sample(torch.arange(6) % 3, torch.Generator().manual_seed(0))
    assert pixels.shape == (6, side, side, 3)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, sample(torch.arange(6) % 3, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", names("pipeline.generators"))
def test_presets_are_valid_settings_of_their_generator(name: str) -> None:
    module = find("pipeline.generators", name)
    for preset in module.PRESETS.values():
        assert configure(module.Config, (), **preset) != module.Config()
