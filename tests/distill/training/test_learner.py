"""A step: parts of a batch, large gradients, running out of memory."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.method import Batch, method_class
from distill.methods.kd import KD
from distill.training.cadence import Cadence
from distill.training.ema import WeightAverage
from indexes import artifact, checkpoint, devices
from indexes.models.net import build_net
from indexes.plugins import find
from tests.support import distillation
from tests.support.training import VIT, World, log_lines, losses, run, same, weights_of

pytestmark = pytest.mark.usefixtures("one_thread")


OUT_OF_MEMORY = (
    torch.OutOfMemoryError("no memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
)


@pytest.fixture(scope="module")
def weighted(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Make shards whose images have different weights."""
    directory, (_, teacher) = tmp_path_factory.mktemp("weighted"), world
    return distillation.make_shards(directory, teacher, weights=np.linspace(0, 2, 60)), teacher


def test_parts_of_a_batch_give_the_step_of_the_whole(
    weighted: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        devices, "has_bf16", lambda device: False
    )  # Its rounding depends on the batch.
    results = []
    for parts in (1, 2, 4):
        recipe = {"accumulate": parts, "lr": 0.02}
        run(weighted, tmp_path / str(parts), "kd", (VIT,), recipe=recipe)
        results.append(weights_of(tmp_path / str(parts) / VIT))
        assert len(losses(tmp_path / str(parts) / VIT)) == 4
    for other in results[1:]:
        for name, value in results[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_a_student_out_of_memory_stops_and_the_others_continue(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    run(world, tmp_path / "alone", students=("resnet14",), steps=5)
    losses = KD.losses

    def hungry(self: KD, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        if self.student.builder.endswith(":resnet8") and progress == 2 / 5:
            raise error
        return losses(self, batch, progress)

    monkeypatch.setattr(KD, "losses", hungry)
    outcomes = run(world, tmp_path / "both", students=("resnet8", "resnet14"), steps=5)
    assert [outcome.state for outcome in outcomes] == ["out of memory", "finished"]
    log = caplog.text
    assert (
        "resnet8 is stopped, because it ran out of memory at step 3 (other students continue): "
        in log
    )
    assert "--accumulate 2" in log
    assert not artifact.is_done(tmp_path / "both" / "resnet8")
    assert same(tmp_path / "both" / "resnet14", tmp_path / "alone" / "resnet14")


def test_a_checkpoint_from_before_running_out_of_memory_is_usable(
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
    directory = tmp_path / "cut" / "resnet8"
    assert checkpoint.find_checkpoints(directory)[0].name == "checkpoint-000000003.pt"
    assert run(world, tmp_path / "cut", steps=5)[0].state == "finished"
    assert same(directory, tmp_path / "whole" / "resnet8")


def test_out_of_memory_in_the_optimizer_stops_the_student(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(self: WeightAverage, step: int) -> None:
        if len(self.mean) == num_tensors:
            raise OUT_OF_MEMORY[0]

    net = build_net("resnet8", num_classes=3).module
    num_tensors = len(WeightAverage(net, 0.9).mean)
    monkeypatch.setattr(WeightAverage, "update", hungry)
    outcomes = run(world, tmp_path, students=("resnet8", "resnet14"), recipe={"ema": 0.9})
    assert [outcome.state for outcome in outcomes] == ["out of memory", "finished"]


def test_a_failed_allocation_counts_as_out_of_memory(
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


@pytest.mark.parametrize("method", ["kd", "hidfd"])
def test_gradients_are_clipped_to_the_limit_of_the_recipe(
    world: World, tmp_path: Path, method: str
) -> None:
    """Without a limit in the recipe, the method's own holds."""
    own = method_class(find("distill.methods", method)).max_grad_norm
    own = own if math.isfinite(own) else 0.0
    moved = {}
    for limit in (None, own, 0.0, 1e-6, 1e3):
        recipe = {"max_grad_norm": limit}
        directory = run(world, tmp_path / str(limit), method, steps=1, recipe=recipe)[0].directory
        moved[limit] = weights_of(directory)
        logged = [line.get("grad_norm") for line in log_lines(directory) if "terms" in line]
        is_clipped = own if limit is None else limit
        assert all((norm is not None) == bool(is_clipped) for norm in logged)

    def same_step(first: float | None, second: float | None) -> bool:
        return all(torch.equal(moved[first][name], moved[second][name]) for name in moved[first])

    assert same_step(None, own)
    assert same_step(0.0, 1e3)
    assert not same_step(0.0, 1e-6)
