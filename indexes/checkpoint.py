"""What a training leaves to go on from: its last checkpoints, a log, and a way to stop."""

from __future__ import annotations

import io
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from indexes import artifact

NAMES = "checkpoint-*.pt"
LOG = "log.jsonl"
KEEP = 2  # checkpoints, the newest ones: should the last be damaged, the one before serves


def found(directory: Path) -> list[Path]:
    """The checkpoints in `directory`, newest first."""
    return sorted(directory.glob(NAMES), reverse=True)


def save(directory: Path, state: dict[str, Any]) -> None:
    """Writes `state` (tensors, numbers, strings, lists and dicts of them) into `directory`.

    It names its "step"; older checkpoints than the last KEEP are deleted.
    """
    import torch

    buffer = io.BytesIO()  # of a full disk torch's own writing says nothing that could be told
    torch.save(state, buffer)
    with artifact.writing(directory / f"checkpoint-{state['step']:09d}.pt") as aside:
        aside.write_bytes(buffer.getbuffer())
    for old in found(directory)[KEEP:]:
        old.unlink()


def load(directory: Path) -> dict[str, Any] | None:
    """The newest whole one that `save` wrote, on the CPU; None where nothing is.

    A damaged one is told on the way; ArtifactError where all are.
    """
    damaged = []
    for path in found(directory):
        try:
            state = _read(path)
        except artifact.ArtifactError as error:
            damaged.append(str(error))
            continue
        if damaged:
            print(f"{'; '.join(damaged)}; going on from {path}", file=sys.stderr, flush=True)
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
    for path in found(directory):
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
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step > 0:
                kept.append(line)
        except (ValueError, TypeError, KeyError):
            continue
    with artifact.writing(path) as aside:
        aside.write_text("".join(kept))


@contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether SIGTERM or Ctrl-C came; a second one interrupts."""
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread may listen
        return
    before = {which: signal.signal(which, note) for which in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(came)
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
