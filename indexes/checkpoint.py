"""What a training leaves to go on from: a checkpoint, whole or absent, a log, and a way to stop."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from indexes import artefact

NAME = "checkpoint.pt"
LOG = "log.jsonl"


def save(directory: Path, state: dict[str, Any]) -> None:
    """Writes `state` (tensors, numbers, strings, lists and dicts of them) into `directory`."""
    import torch

    with artefact.writing(directory / NAME) as aside:
        torch.save(state, aside)


def load(directory: Path, device: str) -> dict[str, Any] | None:
    """What `save` wrote, on `device`; None where nothing is. ArtefactError for a damaged file."""
    import torch

    path = directory / NAME
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        # torch raises several types here, depending on where the damage lies.
        raise artefact.ArtefactError(
            f"{path} is damaged ({type(error).__name__}): delete it to train anew"
        ) from error
    if not isinstance(state, dict):
        raise artefact.ArtefactError(f"{path} is no checkpoint: delete it")
    return state


def remove(directory: Path) -> None:
    """Deletes the checkpoint, if there is one."""
    (directory / NAME).unlink(missing_ok=True)


def write_log(directory: Path, step: int, body: Mapping[str, Any]) -> None:
    """Appends a line to the log: the steps taken, and `body`."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOG).open("a") as file:
        file.write(json.dumps({"step": step, **artefact.plain(body)}) + "\n")


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
    with artefact.writing(path) as aside:
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
