"""What the loop does beside learning: parts of a batch, mean weights, kills, memory."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.data import augment
from distill.method import Batch
from distill.methods.kd import KD
from distill.recipe import Recipe
from distill.training.cadence import Cadence
from distill.training.ema import WeightAverage
from distill.training.learner import Learner
from indexes import artifact, checkpoint, devices
from indexes.artifact import ArtifactError
from indexes.models.net import build_net
from indexes.shards.reader import Shards
from tests.support import distillation
from tests.support.training import VIT, World, killed_at, log_lines, run, same, weights_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def weighed(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Shards whose images weigh differently."""
    place, (_, teacher) = tmp_path_factory.mktemp("weighed"), world
    return distillation.make_shards(place, teacher, weights=np.linspace(0, 2, 60)), teacher


def losses(directory: Path) -> list[float]:
    return [line["terms"]["total"] for line in log_lines(directory) if "terms" in line]


def test_parts_of_a_batch_are_as_the_whole(
    weighed: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda device: False)  # it rounds by the batch
    found = []
    for parts in (1, 2, 4):
        recipe = {"accumulate": parts, "lr": 0.02}
        run(weighed, tmp_path / str(parts), "kd", (VIT,), recipe=recipe)
        found.append(weights_of(tmp_path / str(parts) / VIT))
        assert len(losses(tmp_path / str(parts) / VIT)) == 4
    for other in found[1:]:
        for name, value in found[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5)


def test_parts_must_be_equal() -> None:
    with pytest.raises(ValueError, match="a batch of 16 cannot be taken in 3 equal parts"):
        Recipe(steps=1, batch_size=16, accumulate=3)


@pytest.mark.parametrize(
    "recipe", [{"accumulate": 2}, {"ema": 0.9}, {"color_jitter": 0.3, "views": 2}]
)
def test_resumes_bit_equal_with(world: World, tmp_path: Path, recipe: dict[str, Any]) -> None:
    run(world, tmp_path / "whole", steps=6, recipe=recipe)
    with killed_at(5, save_at=3):
        run(world, tmp_path / "cut", steps=6, recipe=recipe)
    run(world, tmp_path / "cut", steps=6, recipe=recipe)
    assert same(tmp_path / "cut" / "resnet8", tmp_path / "whole" / "resnet8")
    run(world, tmp_path / "plain", steps=6)
    assert not same(tmp_path / "plain" / "resnet8", tmp_path / "whole" / "resnet8")


def test_killed_at_five_steps_with_other_workers_each_time(world: World, tmp_path: Path) -> None:
    """Mid-epoch, resident and streamed by turns."""
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


def test_the_last_checkpoints_are_kept_and_the_one_before_serves(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(world, tmp_path / "whole", steps=8)
    place = tmp_path / "cut" / "resnet8"
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
    names = [path.name for path in checkpoint.find_checkpoints(place)]
    assert names == ["checkpoint-000000006.pt", "checkpoint-000000005.pt"]
    newest = checkpoint.find_checkpoints(place)[0]
    newest.write_bytes(newest.read_bytes()[:-200])
    run(world, tmp_path / "cut", steps=8)
    error = caplog.text
    assert "checkpoint-000000006.pt is damaged" in error
    assert "resnet8: goes on at step 5" in error
    assert same(place, tmp_path / "whole" / "resnet8")
    assert not checkpoint.find_checkpoints(place)


def test_mean_weights_are_saved_and_measured(world: World, tmp_path: Path) -> None:
    run(world, tmp_path / "mean", steps=6, recipe={"ema": 0.6})
    run(world, tmp_path / "last", steps=6)
    assert losses(tmp_path / "mean" / "resnet8") == losses(tmp_path / "last" / "resnet8")
    weights: list[dict[str, torch.Tensor]] = []
    step = Learner.step

    def watching(self: Learner, **kwargs: Any) -> None:
        if not weights:
            weights.append({k: v.clone() for k, v in self.method.module.state_dict().items()})
        step(self, **kwargs)
        weights.append({k: v.clone() for k, v in self.method.module.state_dict().items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "step", watching)
        run(world, tmp_path / "again", steps=6, recipe={"ema": 0.6})
    saved = weights_of(tmp_path / "again" / "resnet8")
    names = [name for name in saved if name.endswith(("weight", "bias"))]
    mean = weights[0]
    for step, now in enumerate(weights[1:], 1):
        decay = min(0.6, (1 + step) / (10 + step))
        mean = {name: decay * mean[name] + (1 - decay) * now[name] for name in names}
    for name in names:
        torch.testing.assert_close(saved[name], mean[name])
    last = weights_of(tmp_path / "last" / "resnet8")
    assert not any(torch.equal(saved[name], last[name]) for name in last if "running" in name)


def test_average_shows_and_puts_back() -> None:
    net = build_net("resnet8", num_classes=3).module
    mean = WeightAverage(net, 0.5)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    after = {k: v.clone() for k, v in net.state_dict().items()}
    with mean.applied():
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(torch.equal(v, after[k]) for k, v in net.state_dict().items())


OUT_OF_MEMORY = (
    torch.OutOfMemoryError("no memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
)


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_a_student_out_of_memory_stops_and_others_go_on(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    run(world, tmp_path / "alone", students=("resnet14",), steps=5)
    losses = KD.losses

    def hungry(self: KD, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        if self.student.builder == "resnet8" and progress == 2 / 5:
            raise error
        return losses(self, batch, progress)

    monkeypatch.setattr(KD, "losses", hungry)
    outcomes = run(world, tmp_path / "both", students=("resnet8", "resnet14"), steps=5)
    assert [one.state for one in outcomes] == ["out of memory", "finished"]
    said = caplog.text
    assert "resnet8 is out of memory at step 3: stopped, others go on; with more of it" in said
    assert "--accumulate 2" in said
    assert not artifact.is_done(tmp_path / "both" / "resnet8")
    assert same(tmp_path / "both" / "resnet14", tmp_path / "alone" / "resnet14")


def test_what_was_saved_before_memory_ran_out_serves(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(world, tmp_path / "whole", steps=5)
    losses = KD.losses

    def hungry(self: KD, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        if progress == 3 / 5:
            raise OUT_OF_MEMORY[0]
        return losses(self, batch, progress)

    with monkeypatch.context() as patch:
        patch.setattr(KD, "losses", hungry)
        patch.setattr(Cadence, "checkpoint_due", lambda self: True)
        assert run(world, tmp_path / "cut", steps=5)[0].state == "out of memory"
    place = tmp_path / "cut" / "resnet8"
    assert checkpoint.find_checkpoints(place)[0].name == "checkpoint-000000003.pt"
    assert run(world, tmp_path / "cut", steps=5)[0].state == "finished"
    assert same(place, tmp_path / "whole" / "resnet8")


def test_out_of_memory_in_the_optimizer_is_the_students_too(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(self: WeightAverage, step: int) -> None:
        if len(self.mean) == num_tensors:
            raise OUT_OF_MEMORY[0]

    net = build_net("resnet8", num_classes=3).module
    num_tensors = len(WeightAverage(net, 0.9).mean)
    monkeypatch.setattr(WeightAverage, "update", hungry)
    outcomes = run(world, tmp_path, students=("resnet8", "resnet14"), recipe={"ema": 0.9})
    assert [one.state for one in outcomes] == ["out of memory", "finished"]


def test_real_memory_that_cannot_be_had_is_known(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(self: KD, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        return {"kd": torch.empty(2**62, dtype=torch.uint8).sum()}

    monkeypatch.setattr(KD, "losses", hungry)
    assert run(world, tmp_path)[0].state == "out of memory"


def test_other_errors_are_not_hidden(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: KD, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        raise RuntimeError("a slip in a method")

    monkeypatch.setattr(KD, "losses", broken)
    with pytest.raises(RuntimeError, match="a slip"):
        run(world, tmp_path)


def test_kept_and_fresh_answers_give_the_same_losses(world: World, tmp_path: Path) -> None:
    """The first epochs of fresh views of seed 0 are the views that are kept."""
    run(world, tmp_path / "fresh", steps=6, recipe={"seed": 0})
    run(world, tmp_path / "kept", steps=6, recipe={"seed": 0, "views": 3})
    fresh, kept = (losses(tmp_path / name / "resnet8") for name in ("fresh", "kept"))
    assert kept == pytest.approx(fresh, rel=2e-3)


def test_answers_that_are_named_are_used_or_refused(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shards, _ = world
    run(world, tmp_path, recipe={"views": 2})
    (place,) = (tmp_path / "targets").iterdir()
    caplog.clear()
    run(world, tmp_path, fresh=True, recipe={"views": 2, "seed": 3}, targets=place)
    said = caplog.text
    assert f"the teacher's logits of 2 views an image are read from {place}" in said
    assert "ask the teacher" not in said
    other = distillation.make_teacher(tmp_path / "other", seed=9)
    its_shards = distillation.make_shards(tmp_path / "set", other)
    with pytest.raises(ArtifactError, match="other shards"):
        run((its_shards, other), tmp_path / "x", recipe={"views": 2}, targets=place)
    same_images = Shards(shards.directory, shards.card)
    with pytest.raises(ArtifactError, match="another teacher"):
        run((same_images, other), tmp_path / "y", recipe={"views": 2}, targets=place)
    with pytest.raises(ArtifactError, match="another view seed"):
        run(world, tmp_path / "z", recipe={"views": 2, "view_seed": 1}, targets=place)
    with pytest.raises(ArtifactError, match="needs the teacher's map"):
        run(world, tmp_path / "v", "kd3", recipe={"views": 2}, targets=place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "VERSION", 99)
        with pytest.raises(ArtifactError, match="another view version"):
            run(world, tmp_path / "w", recipe={"views": 2}, targets=place)
