"""The commands for trained students: evaluate and export. Other modules do their work."""

from __future__ import annotations

import typer

from distill.evaluation.config import EvaluateConfig
from distill.exporters.config import ExportConfig
from indexes.command.console import Answer
from indexes.command.options import command

app = typer.Typer(no_args_is_help=True, add_completion=False)


@command(app, EvaluateConfig)
def evaluate(config: EvaluateConfig) -> Answer:
    """Print the table of the students.

    Example: `winnow evaluate runs/students/* /data/val`
    """
    from distill.evaluation import report
    from distill.evaluation.run import evaluate
    from indexes import devices

    devices.keep_memory(devices.choose(config.device))  # allocator settings as in training
    comparison = evaluate(config)
    return Answer(comparison, report.lines(comparison))


@command(app, ExportConfig)
def export(config: ExportConfig) -> Answer:
    """Print the files of the export.

    Example: `winnow export in21k-winnow-resnet8x4 --format onnx`
    """
    from distill.exporters.run import export, lines

    exported = export(config)
    return Answer(exported, lines(exported))
