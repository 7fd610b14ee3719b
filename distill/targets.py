"""The teacher's answers to each view: asked at every step, or asked once and kept on disk.

With `views = 0` every visit is a fresh view (its number is the visit's) and the teacher runs at
every step. With V views an image has V views for ever, visited in turn; the teacher runs while
they are new and its answers, rounded to float16, go into a memory-mapped file. Which answers are
new is a function of the step alone, so a resumed run asks and reads exactly as an unbroken one.
N training rows, B images of a step, V views, C classes, D features.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distill.data import Feed, Seen
from indexes import artefact

NOTE = "targets.json"
MAX_HALF = 65504.0  # the largest float16

Ask = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Pixels [B, 3, S, S] -> logits [B, C], features [B, D] of the teacher."""


@dataclass(frozen=True)
class Answers:
    """logits [B, C] and, where the method needs them, features [B, D]; float32."""

    logits_BC: Tensor
    features_BD: Tensor | None


class Targets(Protocol):
    """Who answers a step."""

    def answer(self, step: int, seen: Seen) -> Answers:
        """The teacher's answers to what a step sees."""

    def catch_up(self, feed: Feed, step: int) -> None:
        """Makes ready for a training that goes on at `step`."""

    def flush(self, step: int) -> None:
        """Everything asked before `step` is on the disk when this returns."""


class Online:
    """Fresh views, the teacher at every step."""

    def __init__(self, ask: Ask, *, features: bool) -> None:
        self.ask, self.features = ask, features

    def answer(self, step: int, seen: Seen) -> Answers:
        """See Targets."""
        logits_BC, features_BD = self.ask(seen.pixels)
        return Answers(logits_BC, features_BD if self.features else None)

    def catch_up(self, feed: Feed, step: int) -> None:
        """Nothing to catch up with."""

    def flush(self, step: int) -> None:
        """Nothing to keep."""


class Cached:
    """V views for ever, each answered once; `key` names all that the answers depend on."""

    def __init__(
        self,
        ask: Ask,
        directory: Path,
        key: dict[str, Any],
        shape: tuple[int, int, int],
        num_features: int | None,
    ) -> None:
        """`shape` is (N, V, C); features of width `num_features` are kept too unless None.

        Raises ArtefactError for a directory that holds answers of another key.
        """
        num_rows, self.num_views, num_classes = shape
        self.ask, self.directory = ask, directory
        self.key = artefact.digest(key)
        directory.mkdir(parents=True, exist_ok=True)
        logits = directory / "logits.f16", (num_rows, self.num_views, num_classes)
        features = directory / "features.f16", (num_rows, self.num_views, num_features or 0)
        self.filled = self._filled_before()
        if not _is_whole(*logits) or (num_features is not None and not _is_whole(*features)):
            self.filled = 0
        self._write_note()
        self.logits = _map(*logits)
        self.features = None if num_features is None else _map(*features)

    def _filled_before(self) -> int:
        note = self.directory / NOTE
        if not note.is_file():
            return 0
        found = artefact.read_json(note)
        if found.get("key") != self.key:
            raise artefact.ArtefactError(
                f"{self.directory} holds answers to other views or of another teacher: delete it"
            )
        return int(found["filled_steps"])

    def _write_note(self) -> None:
        body = {"key": self.key, "filled_steps": self.filled}
        artefact.write_json(self.directory / NOTE, body)

    def answer(self, step: int, seen: Seen) -> Answers:
        """See Targets. A new answer is used as it will be read later: rounded to float16."""
        index, view = seen.index, seen.visits % self.num_views
        new = (seen.visits < self.num_views) & (step >= self.filled)
        if new.any():
            places = torch.from_numpy(np.flatnonzero(new)).to(seen.pixels.device)
            logits_BC, features_BD = self.ask(seen.pixels[places])
            self.logits[index[new], view[new]] = _half(logits_BC)
            if self.features is not None:
                self.features[index[new], view[new]] = _half(features_BD)
        logits_BC = _full(self.logits[index, view], seen.pixels.device)
        if self.features is None:
            return Answers(logits_BC, None)
        return Answers(logits_BC, _full(self.features[index, view], seen.pixels.device))

    def catch_up(self, feed: Feed, step: int) -> None:
        """Asks what the steps before `step` asked and the file does not hold (it was deleted)."""
        begun = self.filled
        for past, seen in enumerate(feed.steps(begun, max(step, begun)), begun):
            if (seen.visits >= self.num_views).all():
                break
            self.answer(past, seen)

    def flush(self, step: int) -> None:
        """See Targets."""
        if step > self.filled:
            self.logits.flush()
            if self.features is not None:
                self.features.flush()
            self.filled = step
            self._write_note()


def _is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    return path.is_file() and path.stat().st_size == 2 * math.prod(shape)


def _map(path: Path, shape: tuple[int, ...]) -> Any:
    if not _is_whole(path, shape):
        with path.open("wb") as file:
            # A full disk is an OSError here; inside the mapping it would be a bus error.
            os.posix_fallocate(file.fileno(), 0, 2 * math.prod(shape))
    return np.memmap(path, np.float16, "r+", shape=shape)


def _half(x: Tensor) -> npt.NDArray[np.float16]:
    half: npt.NDArray[np.float16] = x.clamp(-MAX_HALF, MAX_HALF).half().cpu().numpy()
    return half


def _full(x: npt.NDArray[np.float16], device: torch.device) -> Tensor:
    return torch.from_numpy(x).to(device).float()
