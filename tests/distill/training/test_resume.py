"""An interrupted training resumes bit-equal; other settings are refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from distill.training.cadence import Cadence
from distill.training.learner import Learner
from distill.training.resume import refuse_others
from indexes import checkpoint
from indexes.artifact import ArtifactError
from tests.support.training import World, killed_at, run, same

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "recipe", [{"accumulate": 2}, {"ema": 0.9}, {"color_jitter": 0.3, "views": 2}]
)
def test_a_training_resumes_bit_equal_with(
    world: World, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    run(world, tmp_path / "whole", steps=6, recipe=recipe)
    with killed_at(5, save_at=3):
        run(world, tmp_path / "cut", steps=6, recipe=recipe)
    run(world, tmp_path / "cut", steps=6, recipe=recipe)
    assert same(tmp_path / "cut" / "resnet8", tmp_path / "whole" / "resnet8")
    run(world, tmp_path / "plain", steps=6)
    assert not same(tmp_path / "plain" / "resnet8", tmp_path / "whole" / "resnet8")


def test_inputs_recorded_before_a_setting_was_added_have_its_default(tmp_path: Path) -> None:
    added = {"weight_decay": 5e-4, "decay_norms": False, "nesterov": True, "warmup_frac": 0.02}
    added |= {"max_grad_norm": None, "crop": None, "crop_area": 0.35}
    before = {"recipe": {"steps": 3, "lr": 0.1}, "student": "resnet8"}
    now = {**before, "recipe": {**before["recipe"], **added}}
    refuse_others(tmp_path, before, now)
    refuse_others(tmp_path, now, before)
    for name, value in (("weight_decay", 1e-4), ("nesterov", False), ("crop", "zeros")):
        other = {**now, "recipe": {**now["recipe"], name: value}}
        with pytest.raises(ArtifactError, match=rf"\(recipe\.{name} was .*, is {value}\)"):
            refuse_others(tmp_path, before, other)


@pytest.mark.slow
def test_five_interruptions_with_changing_workers_resume_bit_equal(
    world: World, tmp_path: Path
) -> None:
    """The interruptions are within an epoch; images alternate between memory and streaming."""
    steps, draw = 14, random.Random(4)
    run(world, tmp_path / "whole", "winnow", steps=steps)
    at = sorted(draw.sample(range(2, steps), 5))
    budgets: list[dict[str, Any]] = [
        {}, {"budget_bytes": 0, "workers": 0}, {"budget_bytes": 0, "workers": 1}, {},
        {"budget_bytes": 0, "workers": 0},
    ]  # fmt: skip
    for step, options in zip(at, budgets, strict=True):
        with killed_at(step, save_at=1):
            run(world, tmp_path / "cut", "winnow", steps=steps, **options)
    run(world, tmp_path / "cut", "winnow", steps=steps)
    assert same(tmp_path / "cut" / "resnet8", tmp_path / "whole" / "resnet8")


def test_the_last_checkpoints_are_kept_and_an_older_one_is_usable(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(world, tmp_path / "whole", steps=8)
    directory = tmp_path / "cut" / "resnet8"
    with monkeypatch.context() as patch:
        patch.setattr(Cadence, "checkpoint_due", lambda self: True)
        backward = Learner.backward

        def dying(self: Learner, *args: Any, **kwargs: Any) -> None:
            if self.num_steps == 6:
                raise RuntimeError("killed")
            backward(self, *args, **kwargs)

        patch.setattr(Learner, "backward", dying)
        with pytest.raises(RuntimeError, match="killed"):
            run(world, tmp_path / "cut", steps=8)
    names = [path.name for path in checkpoint.find_checkpoints(directory)]
    assert names == ["checkpoint-000000006.pt", "checkpoint-000000005.pt"]
    newest = checkpoint.find_checkpoints(directory)[0]
    newest.write_bytes(newest.read_bytes()[:-200])
    run(world, tmp_path / "cut", steps=8)
    log = caplog.text
    assert "checkpoint-000000006.pt is damaged" in log
    assert "resnet8: continuing at step 5" in log
    assert same(directory, tmp_path / "whole" / "resnet8")
    assert not checkpoint.find_checkpoints(directory)


def test_a_finished_training_is_kept_and_other_settings_are_refused(
    world: World, tmp_path: Path
) -> None:
    run(world, tmp_path)
    card = (tmp_path / "resnet8" / "card.json").stat().st_mtime_ns
    assert run(world, tmp_path)[0].state == "already"
    assert (tmp_path / "resnet8" / "card.json").stat().st_mtime_ns == card
    with pytest.raises(ArtifactError, match=r"recipe\.steps was 4, is 5.*--fresh"):
        run(world, tmp_path, steps=5)
    assert run(world, tmp_path, steps=5, fresh=True)[0].state == "finished"


def test_a_checkpoint_of_other_settings_is_refused(world: World, tmp_path: Path) -> None:
    with killed_at(3, save_at=2):
        run(world, tmp_path)
    with pytest.raises(ArtifactError, match=r"recipe\.lr was 0\.1, is 0\.2"):
        run(world, tmp_path, recipe={"lr": 0.2})
    for path in checkpoint.find_checkpoints(tmp_path / "resnet8"):
        path.write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="is damaged"):
        run(world, tmp_path)
    assert run(world, tmp_path, fresh=True)[0].state == "finished"
