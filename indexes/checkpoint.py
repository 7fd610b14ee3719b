"""Resumable training: the newest checkpoints, a log of steps, and a handler of stop signals."""

from __future__ import annotations

import io
import json
import logging
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from indexes import artifact
from indexes.command.console import Terminated

log = logging.getLogger(__name__)

NAMES = "checkpoint-*.pt"
LOG = "log.jsonl"
KEEP = 2  # the newest checkpoints: if the last one is damaged, the one before it is used


def find_checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoints in `directory`, newest first."""
    return sorted(directory.glob(NAMES), reverse=True)


def save(directory: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, and lists and dicts of them) into `directory`.

    `state["step"]` names the file. All but the newest KEEP checkpoints are deleted.
    """
    import torch

    # Serialize to memory first: torch.save reports a full disk with an unusable message.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with artifact.writing(directory / f"checkpoint-{state['step']:09d}.pt") as aside:
        aside.write_bytes(buffer.getbuffer())
    for old in find_checkpoints(directory)[KEEP:]:
        old.unlink()


def load(directory: Path) -> dict[str, Any] | None:
    """Return the newest whole checkpoint that `save` wrote, on the CPU; None if there is none.

    A damaged checkpoint is skipped with a warning. Raises ArtifactError if all are damaged.
    """
    damaged = []
    for path in find_checkpoints(directory):
        try:
            state = _read(path)
        except artifact.ArtifactError as error:
            damaged.append(str(error))
            continue
        if damaged:
            log.warning("%s; resuming from %s", "; ".join(damaged), path)
        return state
    if damaged:
        raise artifact.ArtifactError(f"{'; '.join(damaged)}: delete it to train from the start")
    return None


def _read(path: Path) -> dict[str, Any]:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # The type that torch raises depends on which bytes are damaged.
        raise artifact.ArtifactError(f"{path} is damaged ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise artifact.ArtifactError(f"{path} is damaged (it holds no checkpoint)")
    return state


def remove(directory: Path) -> None:
    """Delete all checkpoints in `directory`."""
    for path in find_checkpoints(directory):
        path.unlink()


def write_log(directory: Path, step: int, body: Mapping[str, Any]) -> None:
    """Append a line to the log: the number of steps taken, and `body`."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOG).open("a") as file:
        file.write(json.dumps({"step": step, **artifact.plain(body)}) + "\n")


def trim_log(directory: Path, step: int) -> None:
    """Drop the log lines after `step`, which will be repeated, and a line truncated by a kill."""
    path = directory / LOG
    if not path.is_file():
        return
    earlier = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step > 0:
                earlier.append(line)
        except (ValueError, TypeError, KeyError):
            continue
    with artifact.writing(path) as aside:
        aside.write_text("".join(earlier))


class StopSignal:
    """Records SIGTERM or Ctrl-C while a training continues to a step where it can stop."""

    def __init__(self) -> None:
        self._number: int | None = None

    @property
    def received(self) -> bool:
        """Whether a signal was received."""
        return self._number is not None

    def handle(self, number: int, frame: object) -> None:
        """Record the first signal; interrupt at once on the second."""
        if self.received:
            self.interrupt()
        self._number = number

    def interrupt(self) -> NoReturn:
        """Interrupt the run: raises Terminated after SIGTERM, otherwise KeyboardInterrupt."""
        raise Terminated if self._number == signal.SIGTERM else KeyboardInterrupt


@contextmanager
def stop_signal() -> Iterator[StopSignal]:
    """Record SIGTERM and Ctrl-C within the block.

    Python delivers signals to the main thread only; in another thread none is recorded.
    """
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = signal.SIGTERM, signal.SIGINT
    before = {number: signal.signal(number, stop.handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
