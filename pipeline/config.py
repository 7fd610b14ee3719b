"""What a run of `winnow select` was asked for, and what that resolves to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexes import artifact, devices, plugins
from indexes.models.teacher import Teacher, load_teacher, resolve_teacher
from pipeline.corpus import Corpus, open_corpus
from pipeline.dedup.run import MODES, Mode
from pipeline.embedding.clip import ClipTower
from pipeline.key_list import Listed
from pipeline.method import Choice, OfflineMethod

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
    tower: ClipTower | None = None
    on_error: str = "continue"
    dedup: Mode = "near"
    protect: Corpus | None = None
    out: Path | None = None
    keys: Path | None = None
    export: Path | None = None
    say: Callable[[str], None] = print


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
    module, name, digest, config = load_method(method, settings, score_set, keys)
    where = devices.choose(device)
    opened = load_teacher(resolve_teacher(teacher, runs), device=where, trust_builder=trust_builder)
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
        tower=ClipTower(tower, where) if tower else None,
        on_error=on_error,
        dedup=dedup,
        protect=open_corpus(protect) if protect else None,
        out=out,
        keys=keys,
        export=export,
        say=say,
    )


def load_method(
    method: str | None, settings: Sequence[str], score_set: str | None, keys: Path | None
) -> tuple[Any, str, str, Choice]:
    """(method, its name, its digest, its configuration) from the flags that may say which."""
    if keys is not None:
        if method or settings or score_set:
            raise ValueError("--keys names the images: leave out --method, --set and --score-set")
        if not keys.is_file():
            raise ValueError(f"--keys {keys}: there is no such file")
        digest = artifact.sha256(keys)
        return Listed(keys), "keys", digest, Listed.Config(sha256=digest)
    if score_set is not None:
        if method not in (None, "mix"):
            raise ValueError(f"--score-set is a method of its own: leave out --method {method}")
        method, settings = "mix", [*settings, f"terms={','.join(score_set.split())}"]
    method = method or DEFAULT_METHOD
    module: Any = plugins.find("pipeline.methods", method)
    digest = artifact.sha256(method) if method.endswith(".py") else method
    return module, Path(method).stem, digest, plugins.configure(module.Config, settings)
