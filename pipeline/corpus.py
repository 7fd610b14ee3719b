"""A corpus: a list of parts, given by a name, by a Python file, or by paths and URLs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import ModuleType

from indexes import plugins
from indexes.sources import filesystem
from indexes.sources.spec import Part, SourceError, open_parts

PLUGINS = "pipeline.corpora"
SLUG_LENGTH = 48


@dataclass(frozen=True)
class Corpus:
    """The parts of a corpus in a fixed order.

    `name` is a short name that is safe in directory names; `spec` is the specification as given,
    without credentials.
    """

    name: str
    spec: str
    parts: list[Part]


def open_corpus(spec: str) -> Corpus:
    """Open the corpus that `spec` names.

    `spec` is the name of a file in pipeline/corpora, the path of your own .py file of the same
    form, or anything that `indexes.open_parts` accepts. A .py file defines `corpus()`, which
    returns parts, or one or several specifications. Raises SourceError if the corpus cannot be
    opened, and UnknownName if `spec` is neither a named corpus nor a path.

    Example:
        >>> corpus = open_corpus("demo")
        >>> corpus.name, len(corpus.parts)
        ('demo', 6)
    """
    if not spec.strip():
        known = ", ".join(plugins.names(PLUGINS))
        raise SourceError(
            f"no corpus given: give a path, glob, brace pattern, URL or one of: {known}"
        )
    if spec.endswith(".py") or spec in plugins.names(PLUGINS):
        return Corpus(slug(spec), spec, _of_module(plugins.find(PLUGINS, spec), spec))
    if re.fullmatch(r"[\w-]+", spec) and not os.path.exists(spec):
        names = plugins.names(PLUGINS)
        hint = plugins.nearest(spec, [*names, *sorted(os.listdir())])
        raise plugins.UnknownName(
            f"there is no file, folder or named corpus {spec!r}.{hint} Named corpora: "
            f"{', '.join(names)}"
        )
    return Corpus(slug(spec), filesystem.redacted(spec), open_parts(spec))


def _of_module(module: ModuleType, spec: str) -> list[Part]:
    corpus: Callable[[], str | Sequence[str | Part]] | None = getattr(module, "corpus", None)
    if not callable(corpus):
        raise SourceError(f"{spec} defines no function `corpus() -> list[Part]`: add one")
    made = corpus()
    if isinstance(made, str):
        return open_parts(made)
    items: list[str | Part] = list(made)
    if not items:
        raise SourceError(f"{spec}: corpus() returns an empty list; it must return parts")
    specs = [item for item in items if isinstance(item, str)]
    if not specs:
        return [item for item in items if not isinstance(item, str)]
    if len(specs) != len(items):
        raise SourceError(
            f"{spec}: corpus() returns a mix of parts and strings; return only one of the two"
        )
    return open_parts(",".join(specs))


def slug(spec: str) -> str:
    """Return a short name for `spec`: its last path component with a letter, as letters and dashes.

    Example:
        >>> slug("/data/lake/{00000..00003}.tar")
        'lake'
    """
    if spec.endswith(".py"):
        spec = spec[: -len(".py")]
    pieces = PurePosixPath(filesystem.path_of(filesystem.redacted(spec))).parts
    plain = [re.sub(r"[^A-Za-z0-9]+", "-", re.sub(r"\.(tar|gz|tgz|parquet)\b", "", p)).strip("-")
             for p in pieces]  # fmt: skip
    telling = [p for p in plain if re.search("[A-Za-z]", p)] or [p for p in plain if p]
    return (telling[-1] if telling else "corpus")[:SLUG_LENGTH].strip("-").lower()
