"""What a training leaves to go on from: its last checkpoints, a log, and a way to stop."""

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
KEEP = 2  # checkpoints, the newest ones: should the last be damaged, the one before serves


def find_checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in `directory`, newest first."""
    return sorted(directory.glob(NAMES), reverse=True)


def save(directory: Path, state: dict[str, Any]) -> None:
    """Writes `state` (tensors, numbers, strings, lists and dicts of them) into `directory`.

    It names its "step"; older checkpoints than the last KEEP are deleted.
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
    """The newest whole checkpoint that `save` wrote, on the CPU; None where there is none.

    A damaged one is skipped with a warning; ArtifactError where all are damaged.
    """
    damaged = []
    for path in find_checkpoints(directory):
        try:
            state = _read(path)
        except artifact.ArtifactError as error:
            damaged.append(str(error))
            continue
        if damaged:
            log.warning("%s; going on from %s", "; ".join(damaged), path)
        return state
    if damaged:
        raise artifact.ArtifactError(f"{'; '.join(damaged)}: delete it to train anew")
    return None


def _read(path: Path) -> dict[str, Any]:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises several types here, depending on where the damage lies.
        raise artifact.ArtifactError(f"{path} is damaged ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise artifact.ArtifactError(f"{path} is damaged (no checkpoint)")
    return state


def remove(directory: Path) -> None:
    """Deletes the checkpoints there are."""
    for path in find_checkpoints(directory):
        path.unlink()


def write_log(directory: Path, step: int, body: Mapping[str, Any]) -> None:
    """Appends a line to the log: the steps taken, and `body`."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOG).open("a") as file:
        file.write(json.dumps({"step": step, **artifact.plain(body)}) + "\n")


def trim_log(directory: Path, step: int) -> None:
    """Drops the lines of steps that will be taken again, and a line cut off by a kill."""
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
    """SIGTERM or Ctrl-C, noted while a training runs on to where it can stop."""

    def __init__(self) -> None:
        self._number: int | None = None

    @property
    def received(self) -> bool:
        """Whether one came."""
        return self._number is not None

    def handle(self, number: int, frame: object) -> None:
        """Notes the first signal; the second one interrupts at once."""
        if self.received:
            self.interrupt()
        self._number = number

    def interrupt(self) -> NoReturn:
        """Raises Terminated after SIGTERM, else KeyboardInterrupt."""
        raise Terminated if self._number == signal.SIGTERM else KeyboardInterrupt


@contextmanager
def stop_signal() -> Iterator[StopSignal]:
    """Notes SIGTERM and Ctrl-C within the block; only the main thread can, elsewhere none comes."""
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
