"""One offline run: what it is made of, and how a stage is made once and reused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from indexes import artifact, embeddings
from pipeline.config import Run
from pipeline.pool import Pool


@dataclass(frozen=True)
class Made:
    """A whole artifact: its directory and the digest of what it was made from."""

    directory: Path
    digest: str
    beside: Mapping[str, Path] = field(default_factory=dict)
    """Where the other columns of its pool lie: raw, dedup."""

    def load(self, name: str) -> npt.NDArray[Any]:
        """An array of the artifact, memory-mapped."""
        array: npt.NDArray[Any] = np.load(
            self.directory / f"{name}.npy", mmap_mode="r", allow_pickle=False
        )
        return array


class Shelf(Protocol):
    """Where a stage puts what it makes, and whom it tells."""

    @property
    def runs(self) -> Path:
        """The directory of every artifact."""

    @property
    def say(self) -> Callable[[str], None]:
        """Takes a line for the user."""


def stage(
    run: Shelf,
    kind: str,
    name: str,
    inputs: dict[str, Any],
    make: Callable[[Made], None],
    directory: Path | None = None,
) -> Made:
    """runs/<kind>/<name>-<digest of inputs>, made unless it is there, whole.

    `make` writes into the directory and ends with a card that bears the digest. ArtifactError: a
    directory given by hand that was made from something else.
    """
    key = artifact.digest({"kind": kind, "schema": artifact.SCHEMAS[kind], **inputs})
    made = Made(directory or run.runs / kind / f"{name}-{key[:10]}", key)
    if not artifact.is_done(made.directory):
        with artifact.locked(made.directory):
            if not artifact.is_done(made.directory):  # else another process has just made it
                make(made)
                return made
    found = artifact.read_card(made.directory, kind).get("digest")
    if found != key:
        raise artifact.ArtifactError(
            f"{made.directory} holds {kind} made from something else (digest "
            f"{str(found)[:10]}, not {key[:10]}): delete it or name another directory"
        )
    run.say(f"{kind}: unchanged, {made.directory}")
    return made


def open_pool(run: Run, embedded: Made, scores: Made) -> Pool:
    """The pool of an embedded corpus with the columns of one artifact and those beside it."""
    weight, bias = (value.detach().float().cpu().numpy() for value in run.teacher.head)
    whole = embeddings.open_embeddings(embedded.directory)
    classes = run.teacher.card.classes
    return Pool(whole, (weight, bias), classes, scores.directory, **scores.beside)
