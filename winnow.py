"""The one command: `winnow select`, `winnow distill`, `winnow inspect`, ... over three packages."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

import distill.cli
import indexes.cli
import pipeline.cli
from indexes.command.console import Answer, Terminated
from indexes.command.options import CommandConfig, Option, command

__version__ = "0.1.0"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Curate an ocean of unlabeled images with the teacher whose training data is lost, then "
    "distil students from the shards. Start with `winnow demo`.",
    epilog="Exit codes: 0 done, 1 a mistake in what was asked, 2 usage, 3 a damaged or refused "
    "artifact, 130 interrupted, 143 terminated.",
)
for package in (pipeline.cli.app, distill.cli.app, indexes.cli.app):
    app.add_typer(package)


@dataclass(frozen=True, kw_only=True)
class DemoConfig(CommandConfig):
    """Run the main job in minutes on a world drawn by code: teach, lose the data, select, distil.

    Example: winnow demo
    """

    runs: Path = Path("runs/demo")
    """The directory of the demo's artifacts."""
    seeds: Annotated[int, Option(min=1)] = 3
    """Students per cell of the table."""


@command(app, DemoConfig)
def demo(config: DemoConfig) -> Answer:
    """The table of the demo."""
    import winnow_demo
    from indexes import devices

    devices.keep_memory(devices.choose())
    return winnow_demo.run(config.runs, winnow_demo.Scale(seeds=config.seeds))


def main() -> None:
    """Entry point of the `winnow` command; SIGTERM ends it as Ctrl-C does."""

    def terminate(number: int, frame: object) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    app()


if __name__ == "__main__":
    main()
