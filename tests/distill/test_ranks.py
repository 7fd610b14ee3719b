"""Two processes train as one: torchrun with gloo against a single process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import winnow
from distill import ranks, setting, train
from distill.methods import kd
from indexes import artefact
from indexes.shards import Shards
from indexes.teachers import Teacher
from tests.distill import worlds
from tests.distill.test_loop import VIT
from tests.distill.test_train import log_lines

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parent.parent.parent
VIEWS = "--views", "2"
STEPS, BATCH = 12, 17  # 8 and 9 images for the two: never even


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ranks")
    teacher = worlds.make_teacher(place / "teachers" / "master")
    worlds.make_shards(place / "shards" / "demo", teacher, 61)
    return place


def words(runs: Path, out: str, *more: object) -> list[str]:
    said = ["distill", "--runs", runs, "--shards", runs / "shards" / "demo", "--out", runs / out,
            "--student", f"resnet8 {VIT}", "--method", "kd", "--steps", STEPS, "--lr", 0.005,
            "--batch-size", BATCH, "--device", "cpu", *more]  # fmt: skip
    return [str(one) for one in said]


def alone(runs: Path, out: str, *more: object) -> None:
    result = CliRunner().invoke(winnow.app, words(runs, out, *more))
    assert result.exit_code == 0, result.output


def together(runs: Path, out: str, *more: object) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", "-m", "winnow", *words(runs, out, *more)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def students(runs: Path, out: str) -> list[Path]:
    return sorted(path.parent for path in (runs / out).glob("*/log.jsonl"))


def curve(directory: Path) -> list[float]:
    return [line["terms"]["total"] for line in log_lines(directory) if "terms" in line]


def test_two_processes_reach_the_curve_of_one(runs: Path) -> None:
    alone(runs, "one", *VIEWS)
    printed = together(runs, "two", *VIEWS)
    assert printed.count("resnet8: trained") == 1, "the first process speaks for both"
    plain, without_norms = zip(students(runs, "one"), students(runs, "two"), strict=True)
    one, two = map(curve, without_norms)
    assert len(one) == len(two) == STEPS
    assert two == pytest.approx(one, rel=0.02), "but for bf16 the same"
    one, two = map(curve, plain)
    # BatchNorm sees half the batch in each process.
    assert two == pytest.approx(one, rel=0.25)
    assert sum(two) == pytest.approx(sum(one), rel=0.05)


def test_one_process_goes_on_where_two_were_and_the_other_way(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train.Pace, "checkpoint_due", lambda self: True)
    agreement = train.agreement

    def dying(*given: object) -> float:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(train, "agreement", dying)  # at a tenth of the steps
        result = CliRunner().invoke(winnow.app, words(runs, "mixed", *VIEWS))
        assert isinstance(result.exception, RuntimeError)
    assert agreement is train.agreement
    together(runs, "mixed", *VIEWS)
    for one, mixed in zip(students(runs, "one"), students(runs, "mixed"), strict=True):
        assert artefact.is_done(mixed)
        steps = [line["step"] for line in log_lines(mixed) if "terms" in line]
        assert steps == list(range(1, STEPS + 1))
        assert sum(curve(mixed)) == pytest.approx(sum(curve(one)), rel=0.05)


def test_a_single_process_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with ranks.joined("cpu") as (team, device):
        assert (team.rank, team.num, device) == (0, 1, "cpu")
        team.wait()
        assert team.any_at(3, lambda: True, device)
        assert not team.any_at(3, lambda: False, device)


def test_more_processes_than_images_are_refused(world: tuple[Shards, Teacher]) -> None:
    recipe = train.Recipe(steps=1, batch_size=4, accumulate=4)
    given = (*world, kd.KD, kd.Config(), recipe, "cpu", None, None, ranks.Ranks(0, 2))
    with pytest.raises(ValueError, match="1 images at a time are too few for 2 processes"):
        setting.images(given[0], None, *given[1:])
