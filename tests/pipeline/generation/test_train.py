"""The training of a generator stops, resumes and survives a round trip to disk."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from torch import Tensor

from indexes import checkpoint
from indexes.artifact import ArtifactError
from pipeline.generation.train import WEIGHTS, fit_generator, read_generator
from pipeline.generators._hidfd_training import Training
from tests.support.generators import (
    World,
    same,
    start_training,
    train_to_end,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_signal_saves_a_checkpoint_and_the_log_has_named_terms(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_run = train_to_end(start_training(*world), tmp_path / "whole")
    trainer, step_of = start_training(*world), Training.step

    def interrupted_step(self: Training, number: int) -> dict[str, Tensor]:
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step_of(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", interrupted_step)
        with pytest.raises(KeyboardInterrupt):
            fit_generator(trainer, tmp_path / "cut", "digest")
    assert checkpoint.find_checkpoints(tmp_path / "cut")
    with pytest.raises(ArtifactError, match="of another training"):
        fit_generator(start_training(*world), tmp_path / "cut", "other")
    assert same(train_to_end(start_training(*world), tmp_path / "cut"), full_run)
    lines = [json.loads(x) for x in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {"d_adv", "d_adc", "trans", "blend", "g_adv", "g_adc", "frequency"} <= set(
        lines[0]["terms"]
    )


def test_a_loss_that_is_not_finite_stops_the_training(world: World, tmp_path: Path) -> None:
    trainer = start_training(*world, lr_generator=1e38)
    with pytest.raises(ValueError, match=r"not finite.*learning rates"):
        fit_generator(trainer, tmp_path, "digest")
    assert not (tmp_path / WEIGHTS).exists()


def test_altered_weights_are_refused(world: World, tmp_path: Path) -> None:
    body = fit_generator(start_training(*world), tmp_path, "digest")
    path = tmp_path / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="not the file that its card describes"):
        read_generator(tmp_path, body)
