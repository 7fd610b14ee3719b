"""The teacher's answers to each view: asked at every step, or asked once and kept on disk.

With `views = 0` every visit is a fresh view (its number is the visit's) and the teacher runs at
every step. With V views an image has V views for ever, the same for every seed, student and
batch size, visited in turn; the teacher is asked about each one once, and its answers, rounded
to float16, go into a memory-mapped file. What was asked counts as answered once it is on the
disk, which happens where students save their checkpoints: a resumed run asks and reads exactly
as an unbroken one.
N training rows, B images of a step, V views, C classes, D features, h w the side of a map.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distill.data import Seen
from indexes import artefact

NOTE = "targets.json"
MAX_HALF = 65504.0  # the largest float16

Ask = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Pixels [B, 3, S, S] -> the teacher's logits [B, C], and its features [B, D], its map
[B, D, h, w] or None: what the method needs."""


@dataclass(frozen=True)
class Answers:
    """logits [B, C], float32, and features [B, D] or a map [B, D, h, w] where they are needed."""

    logits_BC: Tensor
    features: Tensor | None


class Targets(Protocol):
    """Who answers a step."""

    def answer(self, seen: Seen) -> Answers:
        """The teacher's answers to what a step sees."""

    def flush(self) -> None:
        """Everything asked so far is on the disk when this returns."""


class Online:
    """Fresh views, the teacher at every step."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask

    def answer(self, seen: Seen) -> Answers:
        """See Targets."""
        return Answers(*self.ask(seen.pixels))

    def flush(self) -> None:
        """Nothing to keep."""


class Cached:
    """V views for ever, each answered once; `key` names all that the answers depend on."""

    def __init__(
        self,
        ask: Ask,
        directory: Path,
        key: dict[str, Any],
        shape: tuple[int, int, int],
        kept: tuple[int, ...] | None,
    ) -> None:
        """`shape` is (N, V, C); features [B, *kept] are kept too unless that is None.

        Raises ArtefactError for a directory that holds answers of another key.
        """
        num_rows, self.num_views, num_classes = shape
        self.ask = ask
        half = np.dtype(np.float16)
        wanted: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            "logits": ((num_rows, self.num_views, num_classes), half)
        }
        if kept is not None:
            wanted["features"] = ((num_rows, self.num_views, *kept), half)
        wanted["answered"] = ((num_rows, self.num_views), np.dtype(bool))
        with artefact.locked(directory):  # two seeds may begin at once
            _check_note(directory, artefact.digest(key))
            if not all(_is_whole(directory / name, *like) for name, like in wanted.items()):
                (directory / "answered").unlink(missing_ok=True)
                _check_disk(directory, wanted.values())
            maps = {name: _map(directory / name, *like) for name, like in wanted.items()}
        self.logits, self.features = maps["logits"], maps.get("features")
        self.answered = maps["answered"]
        self.asked = np.array(self.answered)

    def answer(self, seen: Seen) -> Answers:
        """See Targets. A new answer is used as it will be read later: rounded to float16."""
        index, view = seen.index, seen.visits % self.num_views
        new = np.flatnonzero(~self.asked[index, view])
        if len(new):
            # An image that ends one epoch and begins the next can show a view twice in a batch.
            shown = (index * self.num_views + view)[new]
            new = new[np.sort(np.unique(shown, return_index=True)[1])]
            places = torch.from_numpy(new).to(seen.pixels.device)
            logits_BC, features = self.ask(seen.pixels[places])
            self.logits[index[new], view[new]] = _half(logits_BC)
            if self.features is not None:
                assert features is not None
                self.features[index[new], view[new]] = _half(features)
            self.asked[index[new], view[new]] = True
        logits_BC = _full(self.logits[index, view], seen.pixels.device)
        if self.features is None:
            return Answers(logits_BC, None)
        return Answers(logits_BC, _full(self.features[index, view], seen.pixels.device))

    def flush(self) -> None:
        """See Targets."""
        self.logits.flush()
        if self.features is not None:
            self.features.flush()
        self.answered[self.asked] = True  # another seed, side by side, may have set more
        self.answered.flush()


def _check_note(directory: Path, key: str) -> None:
    note = directory / NOTE
    if not note.is_file():
        (directory / "answered").unlink(missing_ok=True)
        artefact.write_json(note, {"key": key})
    elif artefact.read_json(note).get("key") != key:
        raise artefact.ArtefactError(
            f"{directory} holds answers to other views or of another teacher: delete it"
        )


def _check_disk(directory: Path, wanted: Iterable[tuple[tuple[int, ...], np.dtype[Any]]]) -> None:
    """OSError beforehand when the answers cannot fit on the disk."""
    needed = sum(dtype.itemsize * math.prod(shape) for shape, dtype in wanted)
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise OSError(
            f"{directory}: the teacher's answers need {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB "
            "are free: make room, choose fewer --views, or ask at each step with --views 0"
        )


def _is_whole(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    return artefact.is_whole(path, dtype.itemsize * math.prod(shape))


def _map(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    if not _is_whole(path, shape, dtype):
        with path.open("wb") as file:
            # A full disk is an OSError here; inside the mapping it would be a bus error.
            os.posix_fallocate(file.fileno(), 0, dtype.itemsize * math.prod(shape))
    return np.memmap(path, dtype, "r+", shape=shape)


def _half(x: Tensor) -> npt.NDArray[np.float16]:
    half: npt.NDArray[np.float16] = x.clamp(-MAX_HALF, MAX_HALF).half().cpu().numpy()
    return half


def _full(x: npt.NDArray[np.float16], device: torch.device) -> Tensor:
    return torch.from_numpy(x).to(device).float()
