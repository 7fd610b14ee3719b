"""The commands that look at artifacts (inspect, verify, query), and how any fails politely."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False)

# Options that commands of several rooms have.
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]
Runs = Annotated[Path, typer.Option(help="Where every artifact is.")]
Trust = Annotated[
    bool, typer.Option(help="Let the teacher's card import code that is not winnow's or timm's.")
]


@contextmanager
def user_errors() -> Iterator[None]:
    """User errors (ValueError, OSError) become one line on stderr and exit code 2."""
    try:
        yield
    except BrokenPipeError:  # whoever read has seen enough, as `head` does
        raise
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
    except RuntimeError as error:
        if "out of memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        fail(f"the device's memory is full ({error}): try a smaller batch, or another device")
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
    """Say what an artifact is: kind, counts, funnel, class histogram, where it came from."""
    from indexes import artifact

    with user_errors():
        if not artifact.is_done(path):
            raise artifact.ArtifactError(f"{path} has no {artifact.CARD}: no whole artifact there")
        card = artifact.read_json(path / artifact.CARD)
        for line in describe(card):
            print(printable(line))


def printable(line: str) -> str:
    """Without what would steer a terminal: a path or a name may hold anything."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line)


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
    path: Annotated[Path, typer.Argument(help="Shards, a net, kept answers, an export.")],
) -> None:
    """Check an artifact against its card: every sha256; of shards the funnel and a reading by
    webdataset, too.
    """
    with user_errors():
        from indexes.shards.verify import verify

        print(f"{path}: {verify(path)}")


@app.command()
def query(
    images: Annotated[
        list[Path] | None, typer.Argument(help="Image files to look for.", show_default=False)
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Words to look for; needs a run with --tower.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbors an image.")] = 10,
    sheet: Annotated[
        Path | None, typer.Option(help="A .jpg or .png to draw what was found into.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="A directory under RUNS/vectors. Default: the last one.")
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Find the images of an embedded corpus that are nearest to yours, or to a text."""
    with user_errors():
        from indexes import contact_sheet as contact
        from indexes.search import Corpus, latest_embeddings, search_image, search_text

        if bool(images) == bool(text):
            raise ValueError("name image files, or --text words: one of the two")
        if sheet:
            contact.check(sheet)
        corpus = Corpus(index or latest_embeddings(runs, "tower" if text else "features"), runs)
        asked = [str(one) for one in images or text or []]
        search = search_text(corpus, asked, k) if text else search_image(corpus, images or [], k)
        answers = list(search)
        for one, found in zip(asked, answers, strict=True):
            print(one)
            for each in found:
                print(f"  {each.similarity:.4f}  {each.key}  ({each.part})")
        if sheet:
            bytes_of = corpus.originals([each.row for found in answers for each in found])
            cells = [
                [(bytes_of[e.row], f"{e.similarity:.4f}\n{e.key[-26:]}") for e in found]
                for found in answers
            ]
            contact.draw(sheet, [p.read_bytes() for p in images] if images else asked, cells)
            print(f"drawn in {sheet}")
