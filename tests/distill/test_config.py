"""The options of a distillation and the values that they resolve to."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.config import DistillConfig, resolve_recipe, split_builders
from indexes.plugins import BadSetting

pytestmark = pytest.mark.usefixtures("one_thread")


def test_builders_can_contain_commas() -> None:
    builders = split_builders(["resnet8, vgg8", "timm:convnext_atto:depths=[1,1,1,1] resnet14"])
    assert builders == ["resnet8", "vgg8", "timm:convnext_atto:depths=[1,1,1,1]", "resnet14"]
    assert split_builders([]) == []


def test_explicit_options_override_the_preset() -> None:
    config = DistillConfig(steps=7, lr=0.3, seed=2, color_jitter=0.1)
    recipe = resolve_recipe(config, {"epochs": 240.0, "batch_size": 64, "lr": 0.05}, 1000)
    assert (recipe.steps, recipe.lr, recipe.batch_size) == (7, 0.3, 64)
    assert (recipe.seed, recipe.color_jitter) == (2, 0.1)
    assert resolve_recipe(DistillConfig(epochs=2), {"steps": 9}, 640).steps == 10


def test_options_are_converted_and_checked() -> None:
    config = DistillConfig(shards="runs/shards/x", students="resnet8 vgg8", settings=["a=1"])
    assert config.shards == Path("runs/shards/x")
    assert config.students == ("resnet8 vgg8",)
    with pytest.raises(BadSetting, match="--optimizer must be one of: sgd, muon"):
        DistillConfig(optimizer="adam")  # type: ignore[arg-type]
    with pytest.raises(BadSetting, match="--views must be at least 0"):
        DistillConfig(views=-1)
