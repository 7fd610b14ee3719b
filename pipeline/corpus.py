"""A corpus: the parts to look through, by name, by a Python file, or by where they lie."""

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
    """Parts in a fixed order; `name` may stand in a directory's name, `spec` is what was asked."""

    name: str
    spec: str
    parts: list[Part]


def open_corpus(spec: str) -> Corpus:
    """The corpus that `spec` names.

    `spec`: a file of pipeline/corpora by its name, a path to a .py file of the same form, or
    anything that `indexes.sources.spec.parts` takes. Such a file defines `corpus()`, which returns
    parts, or one or several specs in turn. Raises SourceError, or UnknownName for a name that is
    neither a file of corpora nor a path.
    """
    if not spec.strip():
        known = ", ".join(plugins.names(PLUGINS))
        raise SourceError(f"no corpus given; name a path, glob, brace, URL or one of: {known}")
    if spec.endswith(".py") or spec in plugins.names(PLUGINS):
        return Corpus(slug(spec), spec, _of_module(plugins.find(PLUGINS, spec), spec))
    if re.fullmatch(r"[\w-]+", spec) and not os.path.exists(spec):
        plugins.find(PLUGINS, spec)  # raises: it lists what exists and the nearest
    return Corpus(slug(spec), filesystem.redacted(spec), open_parts(spec))


def _of_module(module: ModuleType, spec: str) -> list[Part]:
    corpus: Callable[[], str | Sequence[str | Part]] | None = getattr(module, "corpus", None)
    if not callable(corpus):
        raise SourceError(f"{spec}: defines no function `corpus() -> list[Part]`")
    made = corpus()
    if isinstance(made, str):
        return open_parts(made)
    items: list[str | Part] = list(made)
    if not items:
        raise SourceError(f"{spec}: its corpus() returns no parts")
    specs = [item for item in items if isinstance(item, str)]
    if not specs:
        return [item for item in items if not isinstance(item, str)]
    if len(specs) != len(items):
        raise SourceError(f"{spec}: its corpus() mixes parts and strings; return one of the two")
    return open_parts(",".join(specs))


def slug(spec: str) -> str:
    """A short name for `spec`: its last telling path component in letters, digits and dashes."""
    if spec.endswith(".py"):
        spec = spec[: -len(".py")]
    pieces = PurePosixPath(filesystem.path_of(filesystem.redacted(spec))).parts
    plain = [re.sub(r"[^A-Za-z0-9]+", "-", re.sub(r"\.(tar|gz|tgz|parquet)\b", "", p)).strip("-")
             for p in pieces]  # fmt: skip
    telling = [p for p in plain if re.search("[A-Za-z]", p)] or [p for p in plain if p]
    return (telling[-1] if telling else "corpus")[:SLUG_LENGTH].strip("-").lower()
