"""The commands `winnow select`, `winnow generate` and `winnow corpora`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer

from indexes import devices, plugins
from indexes.command.console import Answer
from indexes.command.describe import aligned, funnel_lines, shorten
from indexes.command.options import CommandConfig, command
from pipeline.config import GenerateConfig, SelectConfig

log = logging.getLogger(__name__)

app = typer.Typer(no_args_is_help=True, add_completion=False)
# The figures that rank selections in the order of their students' accuracy (docs/LOG.md), and the
# balance of the classes.
CERTIFIED = ("frechet", "mean_rms", "information", "unsure_frac", "soft_class_entropy")


@command(app, SelectConfig)
def select(config: SelectConfig) -> Answer:
    """Run `winnow select`; the answer is the shards' card, its summary and the next command.

    Example: `winnow select --corpus demo -n 2000`
    """
    from pipeline.stages import select

    devices.keep_memory(devices.choose(config.device))
    shards = select(config)
    directory = shards.directory
    last = f"shards: {directory}", f"next:   winnow distill --shards {directory}"
    log_warnings(shards.card)
    return Answer({"shards": directory, **shards.card}, [*summary(shards.card), *last])


def log_warnings(card: dict[str, Any]) -> None:
    """Log what may be wrong with selected shards, also where no summary is printed."""
    counts = zip(card["classes"], card["class_histogram"], strict=True)
    if missing := [name for name, count in counts if not count]:
        log.warning("%d of the classes have no image: %s", len(missing), shorten(missing))
    for state in ("missing", "changed"):
        if keys := card.get(state):
            log.warning("%d of the listed images are %s: %s", len(keys), state, shorten(keys))
    for damage in card["damaged_parts"]:
        log.warning("a part of the corpus was not read to its end: %s", damage)


def summary(card: dict[str, Any]) -> Iterator[str]:
    """Yield the summary of selected shards: funnel, notes and certificate."""
    yield "funnel:"
    yield from funnel_lines(card["funnel"])
    num_kept, n = card["num_samples"], card["num_requested"]
    if num_kept < n and card["config"]["balance"] != "all":
        yield f"note: {n:,} images were requested, but the pool has only {num_kept:,} candidates"
    if card["below_floor"]:
        yield (
            f"note: {card['below_floor']:,} of the kept images are below floor_log_odds, because "
            "the pool has too few images above it"
        )
    starving = [
        f"{name} ({shortage['kept']}, {shortage['short']} short)"
        for name, shortage in card["starving"].items()
        if shortage["kept"]
    ]
    if starving:
        yield f"note: classes with less than half of an even share: {shorten(starving)}"
    yield "certificate:"
    figures = card["certificate"]
    yield from aligned({name: figures[name] for name in CERTIFIED if name in figures})
    size = f"effective sample size {card['effective_sample_size']:,.0f}"
    yield f"{_size(card)}, {size}"


@command(app, GenerateConfig)
def generate(config: GenerateConfig) -> Answer:
    """Run `winnow generate`; the answer is the shards' card, its summary and the next command.

    Example: `winnow generate --shards runs/shards/lake-winnow-0123456789 --preset small`
    """
    from pipeline.generation.run import generate

    devices.keep_memory(devices.choose(config.device))
    shards = generate(config)
    directory, real = shards.directory, getattr(config.shards, "directory", config.shards)
    last = f"shards: {directory}", f"next:   winnow distill --shards {real} --mix {directory}"
    return Answer({"shards": directory, **shards.card}, [*synthetic_summary(shards.card), *last])


def synthetic_summary(card: dict[str, Any]) -> Iterator[str]:
    """Yield the summary of synthetic shards: the funnel, and how the teacher classifies them."""
    yield "funnel:"
    yield from funnel_lines(card["funnel"])
    if card["num_samples"] < card["num_requested"]:
        yield (
            f"note: {card['num_requested']:,} images were requested, {card['num_samples']:,} were "
            "kept"
        )
    counts = sorted(zip(card["synthetic_histogram"], card["classes"], strict=True))
    (least, rare), (most, common) = counts[0], counts[-1]
    yield (
        f"the teacher assigns {100 * card['agreeing_frac']:.1f} % of the synthetic images to their "
        f"requested class (chance: {100 / len(counts):.1f} %)"
    )
    yield (
        f"ratio of the largest to the smallest class: {card['largest_to_smallest']:.2f} "
        f"({common} {most:,}, {rare} {least:,})"
    )
    yield _size(card)


def _size(card: dict[str, Any]) -> str:
    num_images, mb = card["num_samples"], card["num_bytes"] / 1e6
    return f"{num_images:,} images, {mb:,.1f} MB in {card['num_shards']} shards"


@dataclass(frozen=True, kw_only=True)
class CorporaConfig(CommandConfig):
    """List the corpora that have a name, with a one-line description of each.

    Example: winnow corpora
    """


@command(app, CorporaConfig)
def corpora(config: CorporaConfig) -> Answer:
    """Run `winnow corpora`; the answer maps each corpus to its description."""
    about = {
        name: plugins.first_line(plugins.source("pipeline.corpora", name))
        for name in plugins.names("pipeline.corpora")
    }
    lines = [f"{name:<16} {line}" for name, line in about.items()]
    lines.append("A path, glob, brace pattern, URL or your own .py file is a corpus too.")
    return Answer(about, lines)
