"""The one command: `winnow select`, `winnow distill`, `winnow inspect`, ... over three packages."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

import distill.cli
import indexes.cli
import pipeline.cli

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Curate an ocean of unlabeled images with the teacher whose training data is lost, then "
    "distil students from the shards. Start with `winnow demo`.",
)
for room in (pipeline.cli.app, distill.cli.app, indexes.cli.app):
    app.add_typer(room)


@app.command()
def demo(
    runs: Annotated[Path, typer.Option(help="Where the demo's artifacts go.")] = Path("runs/demo"),
    seeds: Annotated[int, typer.Option(min=1, help="Students per cell of the table.")] = 3,
) -> None:
    """The main job in minutes on a world drawn by code: teach, lose the data, select, distil."""
    with indexes.cli.user_errors():
        import winnow_demo

        winnow_demo.run(runs, seeds)


def main() -> None:
    """Entry point of the `winnow` command; SIGTERM ends it as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app()


if __name__ == "__main__":
    main()
