"""One offline run: what it is made of, and how a stage is made once and reused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from indexes import artifact, devices, plugins
from indexes.embeddings import open_embeddings
from indexes.models.teacher import Teacher, load_teacher, resolve_teacher
from pipeline.config import SelectConfig
from pipeline.corpus import Corpus, open_corpus
from pipeline.embedding.clip import ClipTower
from pipeline.key_list import Listed
from pipeline.method import Method
from pipeline.pool import Pool, classifier_of

log = logging.getLogger(__name__)
DEFAULT_METHOD = "winnow"


@dataclass(frozen=True)
class Artifact:
    """An artifact: its kind and directory, and the digest of what it is made from."""

    kind: str
    directory: Path
    digest: str

    def load(self, name: str) -> npt.NDArray[Any]:
        """The array `name` of the artifact, memory-mapped."""
        array: npt.NDArray[Any] = np.load(
            self.directory / f"{name}.npy", mmap_mode="r", allow_pickle=False
        )
        return array


class HasRuns(Protocol):
    """A run, as far as a stage looks at it."""

    @property
    def runs(self) -> Path:
        """The directory of all artifacts."""


def stage(
    run: HasRuns,
    kind: str,
    name: str,
    inputs: Mapping[str, Any],
    write: Callable[[Artifact], Mapping[str, Any] | None],
    directory: Path | None = None,
) -> Artifact:
    """RUNS/kind/name-<digest of inputs>, made unless it is there, whole.

    `write` writes the files of the artifact and returns the body of the card, to which the digest
    is added, or None where it has written a card with the digest itself. Raises ArtifactError for
    a `directory` that was made from something else.
    """
    digest = artifact.digest({"kind": kind, "schema": artifact.SCHEMAS[kind], **inputs})
    made = Artifact(kind, directory or run.runs / kind / f"{name}-{digest[:10]}", digest)
    if not artifact.is_done(made.directory):
        with artifact.locked(made.directory):
            if not artifact.is_done(made.directory):  # else another process has just made it
                body = write(made)
                if body is not None:
                    artifact.write_card(made.directory, kind, {"digest": digest, **body})
                log.info("%s: made, %s", kind, made.directory)
                return made
    recorded = artifact.read_card(made.directory, kind).get("digest")
    if recorded != digest:
        raise artifact.ArtifactError(
            f"{made.directory} holds {kind} made from something else (digest "
            f"{str(recorded)[:10]}, not {digest[:10]}): delete it or name another directory"
        )
    log.info("%s: unchanged, %s", kind, made.directory)
    return made


@dataclass(frozen=True, kw_only=True)
class Run:
    """A SelectConfig with all that it names opened."""

    config: SelectConfig
    corpus: Corpus
    teacher: Teacher
    method: Method
    tower: ClipTower | None
    evaluation: Corpus | None
    device: str
    workers: int

    @property
    def runs(self) -> Path:
        """The directory of all artifacts."""
        return self.config.runs

    @property
    def name(self) -> str:
        """The name of what depends on corpus and method."""
        return f"{self.corpus.name}-{self.method.name}"

    def open_pool(
        self,
        embedded: Artifact,
        scratch: Artifact,
        *,
        raw: Artifact | None = None,
        dedup: Artifact | None = None,
    ) -> Pool:
        """The pool of the embedded corpus; columns are written into `scratch`."""
        return Pool(
            open_embeddings(embedded.directory),
            classifier_of(self.teacher),
            self.teacher.card.classes,
            scratch.directory,
            raw=raw.directory if raw else None,
            dedup=dedup.directory if dedup else None,
        )


def open_run(config: SelectConfig) -> Run:
    """Opens what a configuration names; ValueError says what does not exist or fit.

    A teacher that is open already stays on its own device, and the run follows it there.
    """
    method = choose_method(config)
    teacher, device = config.teacher, devices.choose(config.device)
    if isinstance(teacher, Teacher):
        device = str(teacher.head[0].device)
    else:
        directory = resolve_teacher(str(teacher) if teacher else None, config.runs)
        teacher = load_teacher(directory, device=device, trust_builder=config.trust_builder)
    workers = config.workers
    return Run(
        config=config,
        corpus=open_corpus(config.corpus),
        teacher=teacher,
        method=method,
        tower=ClipTower(config.tower, device) if config.tower else None,
        evaluation=open_corpus(config.exclude_eval) if config.exclude_eval else None,
        device=device,
        workers=max(1, devices.cores() - 1) if workers is None else workers,
    )


def choose_method(config: SelectConfig) -> Method:
    """The method that --method, --score-set or --keys name, with its settings."""
    name, settings = config.method, config.settings
    if config.keys is not None:
        if name or settings or config.score_set:
            raise ValueError("--keys names the images: leave out --method, --set and --score-set")
        if not config.keys.is_file():
            raise ValueError(f"--keys {config.keys}: there is no such file")
        digest = artifact.sha256(config.keys)
        return Method(Listed(config.keys), "keys", digest, Listed.Config(sha256=digest))
    terms = {}
    if config.score_set is not None:
        if name not in (None, "mix"):
            raise ValueError(f"--score-set is a method of its own: leave out --method {name}")
        name, terms = "mix", {"terms": ",".join(config.score_set.split())}
    name = name or DEFAULT_METHOD
    module: Any = plugins.find("pipeline.methods", name)
    return Method(
        module,
        Path(name).stem,
        artifact.sha256(name) if name.endswith(".py") else name,
        plugins.configure(module.Config, settings, **terms),
    )
