"""The commands that look at artefacts (inspect, verify, query), and how any fails politely."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False)


@contextmanager
def friendly() -> Iterator[None]:
    """User errors (ValueError, OSError) become one line on stderr and exit code 2."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            place = error.filename or "the output directory"
            error = OSError(
                f"{place}: the disk is full. Make room and run the same command again: "
                "it goes on where it stopped"
            )
        fail(str(error))
    except ValueError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; run the same command again to go on")


def fail(message: str) -> None:
    """Prints `error: message` and leaves with exit code 2."""
    color = "\033[31m" if sys.stderr.isatty() else ""
    end = "\033[0m" if color else ""
    print(f"{color}error:{end} {message}", file=sys.stderr, flush=True)
    raise typer.Exit(2)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="Shards, a teacher, a student, embeddings, ...")],
) -> None:
    """Say what an artefact is: kind, counts, funnel, class histogram, where it came from."""
    from indexes import artefact

    with friendly():
        if not artefact.is_done(path):
            raise artefact.ArtefactError(f"{path} has no {artefact.CARD}: no whole artefact there")
        card = artefact.read_json(path / artefact.CARD)
        for line in describe(card):
            print("".join(one if one.isprintable() else ascii(one)[1:-1] for one in line))


def describe(card: dict[str, Any]) -> Iterator[str]:
    """A card as lines for a person; long lists are shortened."""
    for name, value in card.items():
        if name == "funnel":
            yield "funnel:"
            yield from (f"  {line}" for line in funnel_lines(value))
        elif name == "certificate":
            yield "certificate:"
            yield from (f"  {line}" for line in aligned(value))
        elif name == "class_histogram" and "classes" in card:
            pairs = sorted(zip(value, card["classes"], strict=True), reverse=True)
            yield "class_histogram: " + shorten([f"{name} {count}" for count, name in pairs])
        elif isinstance(value, dict):
            yield f"{name}: " + shorten([f"{key}={item}" for key, item in value.items()])
        elif isinstance(value, list):
            plain = [str(item.get("name") if isinstance(item, dict) else item) for item in value]
            yield f"{name}: ({len(value)}) " + shorten(plain)
        else:
            yield f"{name}: {value}"


def shorten(items: list[str], most: int = 12) -> str:
    """The first `most` items, comma-separated."""
    return ", ".join(items[:most]) + (f", ... ({len(items)} in all)" if len(items) > most else "")


def funnel_lines(funnel: dict[str, Any]) -> list[str]:
    """`in`, a line per reason, `kept`, right-aligned."""
    lines = [f"{funnel['in']:>12,} in"]
    lines += [f"{-count:>12,} {reason}" for reason, count in funnel["dropped"].items()]
    return [*lines, f"{funnel['kept']:>12,} kept"]


def aligned(figures: dict[str, float]) -> list[str]:
    """`name  value` a line, the values in one column."""
    return [f"{name:>24}  {value:g}" for name, value in figures.items()]


@app.command()
def verify(
    shards: Annotated[Path, typer.Argument(help="A directory of curated shards.")],
) -> None:
    """Check shards against their card: every sha256, the funnel, and a reading by webdataset."""
    with friendly():
        from indexes.verify import verify_shards

        num_samples = verify_shards(shards)
        print(f"{shards}: {num_samples:,} samples, every digest and count as the card says")


@app.command()
def query(
    images: Annotated[list[Path], typer.Argument(help="Image files to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours an image.")] = 10,
    index: Annotated[
        Path | None, typer.Option(help="A directory under RUNS/vectors. Default: the last one.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Where every artefact is.")] = Path("runs"),
) -> None:
    """Find the images of an embedded corpus that the teacher sees nearest to yours."""
    with friendly():
        from indexes import query as finder

        where = index or finder.latest(runs)
        for path, found in zip(images, finder.query(images, where, runs, k), strict=True):
            print(path)
            for similarity, key, part in found:
                print(f"  {similarity:.4f}  {key}  ({part})")
