"""A stage, which is made once and then reused, and a run with everything that it needs."""

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
from pipeline.method import Choice, Method
from pipeline.pool import Pool, classifier_of

log = logging.getLogger(__name__)
DEFAULT_METHOD = "winnow"


@dataclass(frozen=True)
class Artifact:
    """An artifact: its kind, its directory, and the digest of its inputs."""

    kind: str
    directory: Path
    digest: str

    def load(self, name: str) -> npt.NDArray[Any]:
        """Return the array `name` of the artifact, such as `rows` int64 [N], memory-mapped."""
        array: npt.NDArray[Any] = np.load(
            self.directory / f"{name}.npy", mmap_mode="r", allow_pickle=False
        )
        return array


class HasRuns(Protocol):
    """The part of a run that a stage uses."""

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
    """Return the artifact RUNS/kind/name-DIGEST of the inputs, and make it unless it is complete.

    `write` writes the files of the artifact. It returns the body of the card, to which the digest
    is added, or None if it has written a card with the digest itself. Raises ArtifactError if
    `directory` holds an artifact of other inputs.
    """
    digest = artifact.digest({"kind": kind, "schema": artifact.SCHEMAS[kind], **inputs})
    made = Artifact(kind, directory or run.runs / kind / f"{name}-{digest[:10]}", digest)
    if not artifact.is_done(made.directory):
        with artifact.locked(made.directory):
            if not artifact.is_done(made.directory):  # otherwise another process has just made it
                body = write(made)
                if body is not None:
                    artifact.write_card(made.directory, kind, {"digest": digest, **body})
                log.info("%s: made, %s", kind, made.directory)
                return made
    recorded = artifact.read_card(made.directory, kind).get("digest")
    if recorded != digest:
        raise artifact.ArtifactError(
            f"{made.directory} holds {kind} made from other inputs (digest "
            f"{str(recorded)[:10]}, not {digest[:10]}): delete it or give another directory"
        )
    log.info("%s: unchanged, %s", kind, made.directory)
    return made


@dataclass(frozen=True, kw_only=True)
class Run:
    """A SelectConfig with everything it names opened."""

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
        """The name of the artifacts that depend on corpus and method."""
        return f"{self.corpus.name}-{self.method.name}"

    def open_pool(
        self,
        embedded: Artifact,
        scratch: Artifact,
        *,
        raw: Artifact | None = None,
        dedup: Artifact | None = None,
    ) -> Pool:
        """Open the pool of the embedded corpus, which writes columns into `scratch`."""
        return Pool(
            open_embeddings(embedded.directory),
            classifier_of(self.teacher),
            self.teacher.card.classes,
            scratch.directory,
            raw=raw.directory if raw else None,
            dedup=dedup.directory if dedup else None,
        )


def open_run(config: SelectConfig) -> Run:
    """Open everything that a configuration names.

    A teacher that is already open stays on its device, and the run uses that device. Raises
    ValueError if something does not exist or does not fit.
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
    """Return the method that --method, --score-set or --keys gives, with its settings.

    Raises ValueError if these options exclude each other, or if the key list does not exist.
    """
    name, settings = config.method, config.settings
    if config.keys is not None:
        if name or settings or config.score_set:
            raise ValueError(
                "--keys determines the selection: leave out --method, --set and --score-set"
            )
        if not config.keys.is_file():
            raise ValueError(
                f"--keys {config.keys}: no such file; `winnow select --export` writes one"
            )
        digest = artifact.sha256(config.keys)
        return Method(Listed(config.keys), "keys", digest, Listed.Config(sha256=digest))
    terms = {}
    if config.score_set is not None:
        if name not in (None, "mix"):
            raise ValueError(f"--score-set implies --method mix: leave out --method {name}")
        name, terms = "mix", {"terms": ",".join(config.score_set.split())}
    name = name or DEFAULT_METHOD
    module: Any = plugins.find("pipeline.methods", name)
    if not issubclass(getattr(module, "Config", object), Choice):
        raise ValueError(
            f"{module.__file__} must define a Config that extends pipeline.method.Choice"
        )
    return Method(
        module,
        Path(name).stem,
        artifact.sha256(name) if name.endswith(".py") else name,
        plugins.configure(module.Config, settings, **terms),
    )
