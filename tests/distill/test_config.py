"""The options of a distillation and the values that they resolve to."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.config import DistillConfig, recipe_names, resolve_recipe, split_builders
from distill.recipe import Recipe
from indexes import artifact
from indexes.command.options import field_docs
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


def test_settings_of_the_recipe_override_the_preset() -> None:
    preset = {"weight_decay": 1e-4, "crop": "zeros", "nesterov": False, "drop_at": (0.5,)}
    config = DistillConfig(steps=7, recipe="crop=resized drop_at=0.25,0.75 max_grad_norm=0")
    recipe = resolve_recipe(config, preset, 1000)
    assert recipe == Recipe(
        steps=7, weight_decay=1e-4, crop="resized", nesterov=False, drop_at=(0.25, 0.75),
        max_grad_norm=0.0,
    )  # fmt: skip
    none = DistillConfig(steps=7, recipe={"drop_at": None, "crop": "none", "nesterov": True})
    assert resolve_recipe(none, preset, 1000) == Recipe(steps=7, weight_decay=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("lr=0.1", r"--recipe takes settings without an option of their own: give --lr instead"),
        ("batch_size=64", "give --batch-size instead of batch_size"),
        ("compiled=yes", "give --compile instead of compiled"),
        ("epochs=3", "give --epochs instead of epochs"),
        ("weightdecay=0", "there is no setting 'weightdecay'. Did you mean 'weight_decay'?"),
        ("crop=padd", r"crop must be one of: pad, zeros, resized; not 'padd'. Did you mean 'pad'"),
        ("drop_at=0.5,half", "drop_at takes a value of type float, not 'half'"),
        ("nesterov", "--recipe takes key=value, not 'nesterov'"),
        ("crop_area=2", "crop_area above 0 and at most 1"),
    ],
)
def test_wrong_settings_of_the_recipe_are_refused(words: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_recipe(DistillConfig(recipe=words), {}, 100)


def test_the_help_names_all_settings_of_the_recipe() -> None:
    text = field_docs(DistillConfig)["recipe"]
    named = text.partition(": ")[2].partition(". ")[0].replace(" or ", ", ").split(", ")
    assert named == recipe_names()


def test_cached_targets_determine_the_crop(tmp_path: Path) -> None:
    key = {"color_jitter": 0.0, "seed": 3, "top": 10}
    newer = {**key, "crop": "resized", "crop_area": 0.08}
    for name, body in (("older", key), ("newer", newer)):
        artifact.write_card(tmp_path / name, "targets", {"key": body, "views": 2})
    preset = {"crop": "zeros", "crop_area": 0.5}
    older = resolve_recipe(DistillConfig(targets=tmp_path / "older"), preset, 100)
    assert (older.crop, older.crop_area, older.view_seed) == (None, Recipe.crop_area, 3)
    recipe = resolve_recipe(DistillConfig(targets=tmp_path / "newer"), preset, 100)
    assert (recipe.crop, recipe.crop_area) == ("resized", 0.08)
    other = DistillConfig(targets=tmp_path / "newer", recipe="crop=pad")
    assert resolve_recipe(other, preset, 100).crop == "pad", "the targets are refused later"


def test_options_are_converted_and_checked() -> None:
    config = DistillConfig(shards="runs/shards/x", students="resnet8 vgg8", settings=["a=1"])
    assert config.shards == Path("runs/shards/x")
    assert config.students == ("resnet8 vgg8",)
    with pytest.raises(BadSetting, match="--optimizer must be one of: sgd, muon"):
        DistillConfig(optimizer="adam")  # type: ignore[arg-type]
    with pytest.raises(BadSetting, match="--views must be at least 0"):
        DistillConfig(views=-1)
