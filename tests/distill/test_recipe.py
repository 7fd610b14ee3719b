"""The recipe of a training: settings that do not fit together are refused."""

from __future__ import annotations

from typing import Any

import pytest

from distill.recipe import Mix, Recipe, num_steps
from indexes.shards.reader import Shards

pytestmark = pytest.mark.usefixtures("one_thread")


def test_parts_of_a_batch_must_be_equal() -> None:
    with pytest.raises(ValueError, match="a batch of 16 cannot be split into 3 equal parts"):
        Recipe(steps=1, batch_size=16, accumulate=3)


@pytest.mark.parametrize(
    "recipe", [{"steps": 0}, {"batch_size": 2}, {"views": -1}, {"lr": 0.0}, {"lr": float("nan")}]
)
def test_bad_recipes_raise(recipe: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least"):
        Recipe(**{"steps": 1, **recipe})


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"crop": "center"}, "there is no crop 'center': choose one of pad, zeros, resized"),
        ({"crop_area": 0.0}, "crop_area above 0 and at most 1"),
        ({"crop_area": 1.1}, "crop_area above 0 and at most 1"),
        ({"warmup_frac": 1.0}, "warmup_frac must be at least 0 and below 1"),
        ({"drop_at": (0.5, 1.5)}, "drop_at must hold shares between 0 and 1"),
        ({"weight_decay": -1e-4}, "weight_decay and max_grad_norm must be at least 0"),
        ({"weight_decay": float("nan")}, "weight_decay and max_grad_norm must be at least 0"),
        ({"max_grad_norm": -1.0}, "weight_decay and max_grad_norm must be at least 0"),
    ],
)
def test_settings_out_of_range_raise(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**{"steps": 1, **recipe})


class Counted(Shards):
    """Shards that are known by their number of images alone."""

    def __init__(self, num: int) -> None:
        self.num = num

    def __len__(self) -> int:
        return self.num


def test_an_epoch_of_a_mix_shows_every_image_of_both_sets() -> None:
    """The first figure is that of HiDFD's release: 100,000 images, batches of 64, 240 epochs."""
    assert num_steps(240, 5_000, 64, Mix(Counted(50_000), 0.5)) == 375_120
    assert num_steps(1, 50_000, 64, Mix(Counted(5_000), 0.5)) == 1_563
    assert num_steps(1, 900, 10, Mix(Counted(100), 0.1)) == 100
    assert num_steps(1, 900, 10, Mix(Counted(300), 0.1)) == 300
    assert num_steps(0.5, 900, 20, Mix(Counted(100), 0.1), parts=2) == 25
    assert num_steps(0.001, 10, 4, Mix(Counted(10), 0.5)) == 1


def test_without_a_mix_epochs_follow_one_another_without_a_gap() -> None:
    assert num_steps(240, 50_000, 64) == 187_500
    assert num_steps(30, 100, 64) == 47
    assert num_steps(0.001, 100, 64) == 1


def test_both_sets_have_an_image_in_every_part() -> None:
    mix = Mix(Counted(10), 0.01)
    assert mix.split(64) == (63, 1)
    assert Mix(Counted(10), 0.99).split(64) == (1, 63)
    with pytest.raises(ValueError, match="1 images in a part of a batch cannot hold two shard"):
        mix.split(1)
