"""The commands for students that are trained: evaluate, export. Thin."""

from __future__ import annotations

import typer

from distill.evaluation.config import EvaluateConfig
from distill.exporters.config import ExportConfig
from indexes.command.console import Answer
from indexes.command.options import command

app = typer.Typer(no_args_is_help=True, add_completion=False)


@command(app, EvaluateConfig)
def evaluate(config: EvaluateConfig) -> Answer:
    """The table of the students."""
    from distill.evaluation import report
    from distill.evaluation.run import evaluate
    from indexes import devices

    devices.keep_memory(devices.choose(config.device))  # speed is measured as a training has it
    comparison = evaluate(config)
    return Answer(comparison, report.lines(comparison))


@command(app, ExportConfig)
def export(config: ExportConfig) -> Answer:
    """The files of the export."""
    from distill.exporters.run import export, lines

    exported = export(config)
    return Answer(exported, lines(exported))
