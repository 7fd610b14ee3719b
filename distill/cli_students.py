"""The commands for students that are trained: evaluate, export. Thin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.evaluation.config import EvaluateConfig
from indexes.cli import Runs, Trust, user_errors
from indexes.console import Answer
from indexes.options import command

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


@app.command()
def export(
    student: Annotated[
        str, typer.Argument(help="A student or teacher: a directory, or a name under RUNS.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The export's directory. Default: STUDENT/export.")
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", help="onnx (needs winnow\\[export]), pt2, or both.")
    ] = "onnx,pt2",
    int8: Annotated[
        str,
        typer.Option(
            help="none; static: 8 bits with ranges from images; dynamic: ranges found at each "
            "call. What it costs and gives is measured and told."
        ),
    ] = "none",
    images: Annotated[
        str | None,
        typer.Option(
            help="Images to calibrate on and to try the files on: shards, or a folder, tar, ... "
            "Default: the shards that the student was trained from, where they are under RUNS."
        ),
    ] = None,
    runs: Runs = Path("runs"),
    trust_builder: Trust = False,
) -> None:
    """Write a student as ONNX and torch.export programs with a model card, each file checked.

    A file takes uint8 RGB pixels as a decoder gives them, resized; normalization, class names and
    geometry are inside. It is kept only if it answers as the student does in PyTorch.

    Example: winnow export in21k-winnow-resnet8x4 --int8 static
    """
    with user_errors():
        from distill.exporters.run import export_student

        export_student(student, out, formats, int8, images, runs, trust_builder)
