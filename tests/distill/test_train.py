"""The training loop: every method learns and resumes bit-equal; students are independent."""

from __future__ import annotations

import copy
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.method import Batch, method_class
from distill.training.learner import Learner
from indexes import artifact, checkpoint
from indexes.command.console import Terminated
from indexes.models.net import build_net
from indexes.models.teacher import load_teacher
from indexes.plugins import find, names
from tests.support import distillation
from tests.support.training import World, killed_at, log_lines, run, same

METHODS = names("distill.methods")
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((method, {}) for method in METHODS),
    ("winnow", {"deploy": "plain", "stage": 1.0}),
    ("odsd", {"self_form": "views"}),
]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("views", "optimizer"), [(0, None), (3, "muon")])
@pytest.mark.parametrize(("method", "settings"), VARIANTS)
def test_every_method_trains_and_resumes_bit_equal(
    world: World,
    tmp_path: Path,
    method: str,
    settings: dict[str, Any],
    views: int,
    optimizer: str | None,
) -> None:
    recipe = {"views": views, "optimizer": optimizer}
    config = find("distill.methods", method).Config(**settings)
    outcome = run(world, tmp_path / "whole", method, config=config, steps=6, recipe=recipe)[0]
    assert outcome.state == "finished"
    assert outcome.agreement is not None
    assert 0 <= outcome.agreement <= 1
    terms = [line["terms"] for line in log_lines(outcome.directory) if "terms" in line]
    assert len(terms) == 6
    for line in terms:
        assert line["total"] == pytest.approx(sum(v for k, v in line.items() if k != "total"))
    with killed_at(5, save_at=3):
        run(world, tmp_path / "cut", method, config=config, steps=6, recipe=recipe)
    cut = tmp_path / "cut" / "resnet8"
    assert checkpoint.find_checkpoints(cut)
    assert not artifact.is_done(cut)
    run(world, tmp_path / "cut", method, config=config, steps=6, recipe=recipe)
    assert same(cut, outcome.directory)
    assert not checkpoint.find_checkpoints(cut)
    steps = [line["step"] for line in log_lines(cut) if "terms" in line]
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_loss_falls(world: World, tmp_path: Path, method: str) -> None:
    outcome = run(world, tmp_path, method, steps=60, recipe={"batch_size": 32, "lr": 0.05})[0]
    losses = [line["terms"]["total"] for line in log_lines(outcome.directory) if "terms" in line]
    assert np.mean(losses[-3:]) < 0.7 * losses[0]


@pytest.mark.parametrize("method", METHODS)
def test_images_of_weight_zero_change_nothing(world: World, method: str) -> None:
    _, teacher = world
    module = find("distill.methods", method)
    torch.manual_seed(0)
    student_method = method_class(module)(
        build_net("resnet8", num_classes=3), teacher, module.Config()
    )
    student_method.eval()  # Batch statistics would mix the images.
    generator = torch.Generator().manual_seed(1)
    # Flat colors: the features of plain noise would all be equal.
    pixels, other = torch.rand(2, 12, 3, 1, 1, generator=generator).expand(2, 12, 3, 32, 32)
    weights = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 1.0]).repeat(2)

    state = copy.deepcopy(student_method.state_dict())

    def losses(pixels: Tensor, weights: Tensor) -> dict[str, Tensor]:
        student_method.load_state_dict(state)
        torch.manual_seed(2)
        map_BDHW, features, logits = teacher(pixels)
        needed = map_BDHW if student_method.needs(student_method.config) == "map" else features
        return student_method.losses(Batch(pixels, weights, logits, needed), 0.5)

    before = losses(pixels, weights)
    mixed = torch.where((weights == 0)[:, None, None, None], other, pixels)
    after = losses(mixed, weights)
    for name in before:
        torch.testing.assert_close(after[name], before[name])
    doubled = losses(mixed, weights.flip(0))
    assert any(not torch.allclose(doubled[name], after[name]) for name in after)


def test_two_students_train_as_they_do_alone(world: World, tmp_path: Path) -> None:
    run(world, tmp_path / "both", students=("resnet8", "resnet14"))
    run(world, tmp_path / "one", students=("resnet14",))
    run(world, tmp_path / "other", students=("resnet8",))
    assert same(tmp_path / "both" / "resnet14", tmp_path / "one" / "resnet14")
    assert same(tmp_path / "both" / "resnet8", tmp_path / "other" / "resnet8")


def test_students_at_different_steps_resume_together(world: World, tmp_path: Path) -> None:
    run(world, tmp_path / "whole", students=("resnet8", "resnet14"), steps=5)
    for name, save_at in (("resnet8", 1), ("resnet14", 3)):
        with killed_at(4, save_at=save_at):
            run(world, tmp_path / "cut", students=(name,), steps=5)
    run(world, tmp_path / "cut", students=("resnet8", "resnet14"), steps=5)
    for name in ("resnet8", "resnet14"):
        assert same(tmp_path / "cut" / name, tmp_path / "whole" / name)


@pytest.mark.slow
def test_streaming_trains_as_in_memory(world: World, tmp_path: Path) -> None:
    run(world, tmp_path / "resident")
    run(world, tmp_path / "streamed", budget_bytes=0, workers=1)
    assert same(tmp_path / "resident" / "resnet8", tmp_path / "streamed" / "resnet8")


def test_labels_are_never_read(world: World, tmp_path: Path) -> None:
    _, teacher = world
    results = []
    for number, labels in enumerate((0, np.arange(60) % 3)):
        shards = distillation.make_shards(tmp_path / f"set{number}", teacher, labels=labels)
        run((shards, teacher), tmp_path / f"run{number}")
        results.append(tmp_path / f"run{number}" / "resnet8")
    assert same(*results)


def test_the_seed_and_the_weights_change_the_student(world: World, tmp_path: Path) -> None:
    _, teacher = world
    run(world, tmp_path / "a")
    run(world, tmp_path / "b", recipe={"seed": 1})
    weighed = distillation.make_shards(tmp_path / "set", teacher, weights=np.linspace(0, 2, 60))
    run((weighed, teacher), tmp_path / "c")
    assert not same(tmp_path / "a" / "resnet8", tmp_path / "b" / "resnet8")
    assert not same(tmp_path / "a" / "resnet8", tmp_path / "c" / "resnet8")


def test_a_student_is_a_teacher_directory(world: World, tmp_path: Path) -> None:
    shards, teacher = world
    run(world, tmp_path, steps=30)
    student = load_teacher(tmp_path / "resnet8")
    assert student.card.classes == teacher.card.classes
    assert student.card.mean == teacher.card.mean
    record = artifact.read_card(tmp_path / "resnet8", "teacher")["record"]
    assert record["inputs"]["method"] == "kd"
    assert record["inputs"]["config"]["temperature"] == 4.0
    assert record["inputs"]["shards_digest"] == artifact.digest(shards.card)
    shares = [line["agreement"] for line in log_lines(tmp_path / "resnet8") if "agreement" in line]
    assert len(shares) == 10
    assert record["agreement"] == shares[-1]


def test_a_diverged_student_stops_and_the_others_continue(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backward = Learner.backward

    def poisoned(self: Learner, batch: Batch, part: int, **kwargs: Any) -> None:
        if self.builder == "resnet8" and self.num_steps == 2:
            batch = Batch(batch.pixels * torch.nan, batch.weights, batch.logits, batch.features)
        backward(self, batch, part, **kwargs)

    monkeypatch.setattr(Learner, "backward", poisoned)
    outcomes = run(world, tmp_path, students=("resnet8", "resnet14"), steps=6)
    assert [outcome.state for outcome in outcomes] == ["diverged", "finished"]
    assert not artifact.is_done(tmp_path / "resnet8")
    assert (
        "resnet8 is stopped, because its loss or its weights were not finite by step 3"
        in caplog.text
    )
    assert len([line for line in log_lines(tmp_path / "resnet8") if "terms" in line]) == 3


def test_weights_damaged_by_the_last_step_are_not_saved(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Learner.step

    def spoiling(self: Learner, **kwargs: Any) -> None:
        step(self, **kwargs)
        if self.num_steps == 4:
            with torch.no_grad():
                next(self.method.parameters()).mul_(torch.inf)

    monkeypatch.setattr(Learner, "step", spoiling)
    assert run(world, tmp_path)[0].state == "diverged"
    assert not artifact.is_done(tmp_path / "resnet8")


def test_sigterm_saves_and_the_same_command_resumes(world: World, tmp_path: Path) -> None:
    run(world, tmp_path / "whole", steps=5)
    step = Learner.step

    def signalled(self: Learner, **kwargs: Any) -> None:
        step(self, **kwargs)
        if self.num_steps == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "step", signalled)
        with pytest.raises(Terminated):
            run(world, tmp_path / "cut", steps=5)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    state = checkpoint.load(tmp_path / "cut" / "resnet8")
    assert state is not None
    assert state["step"] == 3
    run(world, tmp_path / "cut", steps=5)
    assert same(tmp_path / "cut" / "resnet8", tmp_path / "whole" / "resnet8")


def test_the_global_random_state_is_unchanged(world: World, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    run(world, tmp_path, steps=1)
    assert torch.equal(torch.get_rng_state(), before)
