"""One offline run: what it is made of, and how a stage is made once and reused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes import artefact, devices, names, teachers
from indexes.teachers import Teacher
from pipeline.corpus import Corpus, open_corpus
from pipeline.method import Choice, OfflineMethod
from pipeline.tower import Tower


@dataclass(frozen=True, kw_only=True)
class Run:
    """One offline run: a corpus, a teacher, a method, and where things go."""

    corpus: Corpus
    teacher: Teacher
    method: OfflineMethod
    method_name: str
    method_digest: str
    config: Choice
    n: int
    seed: int
    runs: Path
    device: str
    workers: int
    tower: Tower | None = None
    on_error: str = "continue"
    out: Path | None = None
    say: Callable[[str], None] = print


@dataclass(frozen=True)
class Made:
    """A whole artefact: its directory and the digest of what it was made from."""

    directory: Path
    digest: str

    def load(self, name: str) -> npt.NDArray[Any]:
        """An array of the artefact, memory-mapped."""
        array: npt.NDArray[Any] = np.load(
            self.directory / f"{name}.npy", mmap_mode="r", allow_pickle=False
        )
        return array


def prepare(
    *,
    corpus: str,
    runs: Path,
    teacher: str | None = None,
    method: str = "odsd",
    settings: Sequence[str] = (),
    n: int = 50_000,
    seed: int = 0,
    out: Path | None = None,
    tower: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    on_error: str = "continue",
    trust_builder: bool = False,
    say: Callable[[str], None] = print,
) -> Run:
    """A Run from what a user types; ValueError (a subclass) says what does not exist or fit."""
    if on_error not in ("continue", "stop"):
        raise ValueError(f"--on-error is continue or stop, not {on_error!r}")
    module: Any = names.find("pipeline.methods", method)
    config = names.configure(module.Config, settings)
    where = devices.choose(device)
    opened = teachers.open(
        teachers.resolve(teacher, runs), device=where, trust_builder=trust_builder
    )
    return Run(
        corpus=open_corpus(corpus),
        teacher=opened,
        method=module,
        method_name=Path(method).stem,
        method_digest=artefact.sha256(method) if method.endswith(".py") else method,
        config=config,
        n=n,
        seed=seed,
        runs=runs,
        device=where,
        workers=workers if workers is not None else max(1, devices.cores() - 1),
        tower=Tower(tower, where) if tower else None,
        on_error=on_error,
        out=out,
        say=say,
    )


def stage(
    run: Run,
    kind: str,
    name: str,
    inputs: dict[str, Any],
    make: Callable[[Made], None],
    directory: Path | None = None,
) -> Made:
    """runs/<kind>/<name>-<digest of inputs>, made unless it is there, whole.

    `make` writes into the directory and ends with a card that bears the digest. ArtefactError: a
    directory given by hand that was made from something else.
    """
    key = artefact.digest({"kind": kind, "schema": artefact.SCHEMAS[kind], **inputs})
    made = Made(directory or run.runs / kind / f"{name}-{key[:10]}", key)
    if not artefact.is_done(made.directory):
        with artefact.locked(made.directory):
            if not artefact.is_done(made.directory):  # else another process has just made it
                make(made)
                return made
    found = artefact.read_card(made.directory, kind).get("digest")
    if found != key:
        raise artefact.ArtefactError(
            f"{made.directory} holds {kind} made from something else (digest "
            f"{str(found)[:10]}, not {key[:10]}): delete it or name another directory"
        )
    run.say(f"{kind}: unchanged, {made.directory}")
    return made
