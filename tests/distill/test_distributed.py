"""Two processes train like one: torchrun with gloo, compared with a single process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import winnow
from distill import distributed, train
from distill.methods import kd
from distill.recipe import Recipe
from distill.training.build import TrainingJob, build_setup
from distill.training.cadence import Cadence
from indexes import artifact
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards
from tests.support import distillation
from tests.support.training import VIT, log_lines

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]
VIEWS = "--views", "2"
SPOILT = """from torch import nn

class Spoilt(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(3, num_classes)

    def forward(self, pixels):
        return self.fc(pixels.mean((2, 3)) * float("nan"))

def build(num_classes):
    return Spoilt(num_classes)
"""
STEPS, BATCH = 12, 17  # 8 and 9 images for the two processes: never equal


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("group")
    teacher = distillation.make_teacher(root / "teachers" / "mentor")
    distillation.make_shards(root / "shards" / "demo", teacher, 61)
    return root


def words(runs: Path, out: str, *more: object) -> list[str]:
    command = ["distill", "--runs", runs, "--shards", runs / "shards" / "demo", "--out", runs / out,
            "--student", f"resnet8 {VIT}", "--method", "kd", "--steps", STEPS, "--lr", 0.005,
            "--batch-size", BATCH, "--device", "cpu", *more]  # fmt: skip
    return [str(word) for word in command]


def alone(runs: Path, out: str, *more: object) -> None:
    result = CliRunner().invoke(winnow.app, words(runs, out, *more))
    assert result.exit_code == 0, result.output


def labeled(runs: Path) -> Path:
    """A folder per class."""
    for number in range(9):
        directory = runs / "val" / distillation.CLASSES[number % 3]
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{number}.png").write_bytes(distillation.draw_image(number))
    return runs / "val"


def torchrun(runs: Path, out: str, *more: object, code: int = 0) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", "-m", "winnow", *words(runs, out, *more)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout


def students(runs: Path, out: str) -> list[Path]:
    return sorted(path.parent for path in (runs / out).glob("*/log.jsonl"))


def curve(directory: Path) -> list[float]:
    return [line["terms"]["total"] for line in log_lines(directory) if "terms" in line]


@pytest.mark.slow
def test_two_processes_reproduce_the_loss_curve_of_one(runs: Path) -> None:
    alone(runs, "one", *VIEWS)
    printed = torchrun(runs, "two", *VIEWS)
    assert printed.count("resnet8: trained") == 1, "only the first process prints"
    plain, without_norms = zip(students(runs, "one"), students(runs, "two"), strict=True)
    single, double = map(curve, without_norms)
    assert len(single) == len(double) == STEPS
    assert double == pytest.approx(single, rel=0.02), "equal up to bf16 precision"
    single, double = map(curve, plain)
    # BatchNorm normalizes over half of the batch in each process.
    assert double == pytest.approx(single, rel=0.25)
    assert sum(double) == pytest.approx(sum(single), rel=0.05)


@pytest.mark.slow
def test_a_run_resumes_with_another_number_of_processes(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cadence, "checkpoint_due", lambda self: True)
    agreement = train.agreement

    def dying(*given: object) -> float:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(train, "agreement", dying)  # at a tenth of the steps
        result = CliRunner().invoke(winnow.app, words(runs, "mixed", *VIEWS))
        assert isinstance(result.exception, RuntimeError)
    assert agreement is train.agreement
    torchrun(runs, "mixed", *VIEWS)
    for single, mixed in zip(students(runs, "one"), students(runs, "mixed"), strict=True):
        assert artifact.is_done(mixed)
        steps = [line["step"] for line in log_lines(mixed) if "terms" in line]
        assert steps == list(range(1, STEPS + 1))
        assert sum(curve(mixed)) == pytest.approx(sum(curve(single)), rel=0.05)


def test_gradients_and_statistics_are_averaged_over_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gradients are averaged by image weight; statistics evenly, even if all weights are 0."""
    for weights in ((1.0, 3.0), (0.0, 0.0)):
        sent: list[torch.Tensor] = []

        def both(value: torch.Tensor, sent: list[torch.Tensor] = sent) -> None:
            sent.append(value.clone())
            value.copy_(sum(sent))  # the second process: the sum of both values

        monkeypatch.setattr(distributed.distributed, "all_reduce", both)
        parts = [(torch.full((2, 2), float(r + 1)), torch.full((3,), 10.0 * r)) for r in range(2)]
        for (grad, buffer), weight in zip(parts, weights, strict=True):
            distributed.average_gradients(
                [grad], [buffer], torch.tensor(weight), distributed.ProcessGroup(0, 2)
            )
        grad, buffer = parts[-1]
        assert torch.equal(grad, torch.full((2, 2), 1.75 if sum(weights) else 0.0))
        assert torch.equal(buffer, torch.full((3,), 5.0))


@pytest.mark.slow
def test_processes_with_nothing_to_save_wait_for_the_first(runs: Path) -> None:
    """torchrun ends all other processes as soon as one exits after a stopped student."""
    (runs / "spoilt.py").write_text(SPOILT)
    spoilt = "--student", f"{runs / 'spoilt.py'}:build", "--trust-builder"
    printed = torchrun(runs, "stopped", *VIEWS, *spoilt, "--eval", labeled(runs), code=1)
    assert printed.count("diverged") == 1
    assert printed.count(": trained") == 2
    for directory in students(runs, "stopped"):
        is_finished = "spoilt" not in directory.name and "build" not in directory.name
        assert artifact.is_done(directory) == is_finished
        assert (directory / "evaluation.json").is_file() == is_finished


def test_a_single_process_needs_no_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.init_distributed("cpu") as (group, device):
        assert (group.rank, group.num, device) == (0, 1, "cpu")
        group.wait()
        assert group.any_rank(3, lambda: True, device)
        assert not group.any_rank(3, lambda: False, device)


def test_more_processes_than_images_are_refused(
    world: tuple[Shards, Teacher], tmp_path: Path
) -> None:
    shards, teacher = world
    job = TrainingJob(
        shards=shards,
        teacher=teacher,
        students={"resnet8": tmp_path / "student"},
        method=kd,
        config=kd.Config(),
        recipe=Recipe(steps=1, batch_size=4, accumulate=4),
        targets_root=tmp_path / "targets",
        group=distributed.ProcessGroup(0, 2),
    )
    with pytest.raises(
        ValueError, match=r"4 is too small for --accumulate 4 and 2 process.*: each part needs 2"
    ):
        build_setup(job, [])
