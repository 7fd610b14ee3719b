"""The commands that look at artifacts: inspect, verify, search. Thin: the work is elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from indexes.command.console import Answer
from indexes.command.options import CommandConfig, Option, command
from indexes.retrieval import Match, SearchConfig

app = typer.Typer(no_args_is_help=True, add_completion=False)


@dataclass(frozen=True, kw_only=True)
class InspectConfig(CommandConfig):
    """Show what an artifact is: kind, counts, funnel, class histogram, where it came from.

    Example: winnow inspect runs/shards/demo-winnow-0123456789
    """

    path: Annotated[Path, Option(argument=True)]
    """Shards, a teacher, a student, embeddings, ..."""


@command(app, InspectConfig)
def inspect(config: InspectConfig) -> Answer:
    """The card, as a page or as JSON."""
    from indexes.command.describe import describe, inspect

    card = inspect(config.path)
    return Answer(card, describe(card))


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(CommandConfig):
    """Check an artifact against its card: every sha256; the funnel of shards, and a reading of
    them by webdataset.

    Example: winnow verify runs/shards/demo-winnow-0123456789
    """

    path: Annotated[Path, Option(argument=True)]
    """Shards, a teacher or student, cached targets, an export."""


@command(app, VerifyConfig)
def verify(config: VerifyConfig) -> Answer:
    """What is whole, in words."""
    from indexes.shards.verify import verify

    text = verify(config.path)
    return Answer({"path": config.path, "whole": True, "checked": text}, [f"{config.path}: {text}"])


@command(app, SearchConfig)
def search(config: SearchConfig) -> Answer:
    """The matches of each query, nearest first."""
    from indexes.retrieval import search

    matches = search(config)
    return Answer(matches, _lines(config, matches))


def _lines(config: SearchConfig, matches: dict[str, list[Match]]) -> Iterator[str]:
    for query, query_matches in matches.items():
        yield query
        for match in query_matches:
            yield f"  {match.similarity:.4f}  {match.key}  ({match.part})"
    if config.sheet:
        yield f"drawn in {config.sheet}"
