"""The checkpoints and the log of a training run, and the signals that stop it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from indexes import checkpoint
from indexes.artifact import ArtifactError
from indexes.command.console import Terminated


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)]
)
def test_the_first_signal_is_recorded_and_the_second_interrupts(
    number: int, error: type[BaseException]
) -> None:
    before = signal.getsignal(number)
    with checkpoint.stop_signal() as stop:
        assert not stop.received
        os.kill(os.getpid(), number)
        assert stop.received
        with pytest.raises(error) as raised:
            stop.interrupt()
        assert raised.type is error
        with pytest.raises(error):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_the_newest_complete_checkpoint_is_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert checkpoint.load(tmp_path) is None
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, {"step": step, "weight": torch.ones(2)})
    newest, previous = checkpoint.find_checkpoints(tmp_path)
    newest.write_bytes(b"damaged")
    state = checkpoint.load(tmp_path)
    assert state is not None
    assert state["step"] == 2
    assert f"resuming from {previous}" in caplog.text
    previous.write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="delete it to train from the start"):
        checkpoint.load(tmp_path)
    checkpoint.remove(tmp_path)
    assert checkpoint.load(tmp_path) is None


def test_a_log_is_truncated_to_its_checkpoint(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.write_log(tmp_path, step, {"loss": float(step)})
    with (tmp_path / checkpoint.LOG).open("a") as file:
        file.write('{"step": 2, "lo')
    checkpoint.trim_log(tmp_path, 2)
    lines = (tmp_path / checkpoint.LOG).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 2.0},
    ]
