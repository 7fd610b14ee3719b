"""The `winnow` command: the subcommands of the three packages, and `winnow demo`."""

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

__version__ = "0.2.0"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Select images from an unlabeled corpus with a teacher whose training data is lost, then "
    "distill students from the selected images. Start with `winnow demo`.",
    epilog="Exit codes: 0 success, 1 invalid input, 2 wrong usage of the command line, 3 a damaged "
    "or mismatched artifact, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM).",
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"winnow {__version__}")
        raise typer.Exit


VERSION = typer.Option("--version", is_eager=True, callback=_print_version,
                       help="Print the version and exit.")  # fmt: skip


@app.callback()
def _winnow(version: Annotated[bool, VERSION] = False) -> None:
    """Accept `--version` before any command."""


for package in (pipeline.cli.app, distill.cli.app, indexes.cli.app):
    app.add_typer(package)


@dataclass(frozen=True, kw_only=True)
class DemoConfig(CommandConfig):
    """Run the whole pipeline in minutes on generated images, without downloads.

    The demo trains a teacher, deletes its training data, selects from an unlabeled corpus, distills
    students, and compares the default selection method with two controls.

    Example: winnow demo
    """

    runs: Path = Path("runs/demo")
    """The directory for the demo's artifacts."""
    seeds: Annotated[int, Option(min=1)] = 3
    """Students to train per cell of the table, each with its own seed."""


@command(app, DemoConfig)
def demo(config: DemoConfig) -> Answer:
    """Run the demo and return its table."""
    import winnow_demo
    from indexes import devices

    devices.keep_memory(devices.choose())
    return winnow_demo.run(config.runs, winnow_demo.Scale(seeds=config.seeds))


def main() -> None:
    """Run the `winnow` command; SIGTERM stops it in the same way as Ctrl-C."""

    def terminate(number: int, frame: object) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    app()


if __name__ == "__main__":
    main()
