"""The commands that read artifacts: inspect, verify, search. The work is done in other modules."""

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
    """Show the card of an artifact: its kind, counts, funnel, class histogram and origin.

    Example: winnow inspect runs/shards/demo-winnow-0123456789
    """

    path: Annotated[Path, Option(argument=True)]
    """The directory of an artifact: shards, a teacher, a student, embeddings, ..."""


@command(app, InspectConfig)
def inspect(config: InspectConfig) -> Answer:
    """Return the card of an artifact, as a page for people and as JSON.

    Example: `winnow inspect runs/teachers/r18 --json`
    """
    from indexes.command.describe import describe, inspect

    card = inspect(config.path)
    return Answer(card, describe(card))


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(CommandConfig):
    """Check an artifact against its card: the sha256 of every file. For shards, also check that
    the funnel adds up and that webdataset reads every sample.

    Example: winnow verify runs/shards/demo-winnow-0123456789
    """

    path: Annotated[Path, Option(argument=True)]
    """The directory of shards, a teacher, a student, cached targets or an export."""


@command(app, VerifyConfig)
def verify(config: VerifyConfig) -> Answer:
    """Return a sentence about the checks that passed.

    Example: `winnow verify runs/teachers/r18`
    """
    from indexes.shards.verify import verify

    text = verify(config.path)
    return Answer({"path": config.path, "whole": True, "checked": text}, [f"{config.path}: {text}"])


@command(app, SearchConfig)
def search(config: SearchConfig) -> Answer:
    """Return the matches of each query, nearest first.

    Example: `winnow search cat.jpg -k 5`
    """
    from indexes.retrieval import search

    matches = search(config)
    return Answer(matches, _lines(config, matches))


def _lines(config: SearchConfig, matches: dict[str, list[Match]]) -> Iterator[str]:
    for query, query_matches in matches.items():
        yield query
        for match in query_matches:
            yield f"  {match.similarity:.4f}  {match.key}  ({match.part})"
    if config.sheet:
        yield f"contact sheet: {config.sheet}"
