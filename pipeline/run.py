"""One offline run: what it is made of, and how a stage is made once and reused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from indexes import artefact, devices, embeddings, names, teachers
from indexes.teachers import Teacher
from pipeline.corpus import Corpus, open_corpus
from pipeline.dedup import MODES, Mode
from pipeline.keys import Listed
from pipeline.method import Choice, OfflineMethod
from pipeline.pool import Pool
from pipeline.tower import Tower

DEFAULT_METHOD = "winnow"


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
    dedup: Mode = "near"
    protect: Corpus | None = None
    out: Path | None = None
    keys: Path | None = None
    export: Path | None = None
    say: Callable[[str], None] = print


@dataclass(frozen=True)
class Made:
    """A whole artefact: its directory and the digest of what it was made from."""

    directory: Path
    digest: str
    beside: Mapping[str, Path] = field(default_factory=dict)
    """Where the other columns of its pool lie: raw, dedup."""

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
    method: str | None = None,
    settings: Sequence[str] = (),
    score_set: str | None = None,
    keys: Path | None = None,
    export: Path | None = None,
    n: int = 50_000,
    seed: int = 0,
    out: Path | None = None,
    tower: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    on_error: str = "continue",
    dedup: str = "near",
    protect: str | None = None,
    trust_builder: bool = False,
    say: Callable[[str], None] = print,
) -> Run:
    """A Run from what a user types; ValueError (a subclass) says what does not exist or fit."""
    if on_error not in ("continue", "stop"):
        raise ValueError(f"--on-error is continue or stop, not {on_error!r}")
    if dedup not in MODES:
        raise ValueError(f"--dedup is {', '.join(MODES)}, not {dedup!r}")
    module, name, digest, config = chosen_method(method, settings, score_set, keys)
    where = devices.choose(device)
    opened = teachers.open(
        teachers.resolve(teacher, runs), device=where, trust_builder=trust_builder
    )
    return Run(
        corpus=open_corpus(corpus),
        teacher=opened,
        method=module,
        method_name=name,
        method_digest=digest,
        config=config,
        n=n,
        seed=seed,
        runs=runs,
        device=where,
        workers=workers if workers is not None else max(1, devices.cores() - 1),
        tower=Tower(tower, where) if tower else None,
        on_error=on_error,
        dedup=dedup,
        protect=open_corpus(protect) if protect else None,
        out=out,
        keys=keys,
        export=export,
        say=say,
    )


def chosen_method(
    method: str | None, settings: Sequence[str], score_set: str | None, keys: Path | None
) -> tuple[Any, str, str, Choice]:
    """(method, its name, its digest, its configuration) from the flags that may say which."""
    if keys is not None:
        if method or settings or score_set:
            raise ValueError("--keys names the images: leave out --method, --set and --score-set")
        if not keys.is_file():
            raise ValueError(f"--keys {keys}: there is no such file")
        digest = artefact.sha256(keys)
        return Listed(keys), "keys", digest, Listed.Config(sha256=digest)
    if score_set is not None:
        if method not in (None, "mix"):
            raise ValueError(f"--score-set is a method of its own: leave out --method {method}")
        method, settings = "mix", [*settings, f"terms={','.join(score_set.split())}"]
    method = method or DEFAULT_METHOD
    module: Any = names.find("pipeline.methods", method)
    digest = artefact.sha256(method) if method.endswith(".py") else method
    return module, Path(method).stem, digest, names.configure(module.Config, settings)


class Shelf(Protocol):
    """Where a stage puts what it makes, and whom it tells."""

    @property
    def runs(self) -> Path:
        """The directory of every artefact."""

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


def open_pool(run: Run, embedded: Made, scores: Made) -> Pool:
    """The pool of an embedded corpus with the columns of one artefact and those beside it."""
    weight, bias = (value.detach().float().cpu().numpy() for value in run.teacher.head)
    whole = embeddings.open_embeddings(embedded.directory)
    classes = run.teacher.card.classes
    return Pool(whole, (weight, bias), classes, scores.directory, **scores.beside)


def save(path: Path, array: npt.NDArray[Any]) -> None:
    """An array as .npy, atomically."""
    with artefact.writing(path) as aside, aside.open("wb") as file:
        np.save(file, array, allow_pickle=False)
