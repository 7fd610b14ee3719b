"""The commands for students that are trained: evaluate, export. Thin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from indexes.cli import Device, Runs, Trust, user_errors

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command()
def evaluate(
    student: Annotated[
        list[str],
        typer.Argument(help="Students or teachers: directories, or names under RUNS."),
    ],
    labeled: Annotated[
        str, typer.Argument(help="A labeled set: a folder per class, tars with .cls, Parquet.")
    ],
    teacher: Annotated[
        str | None, typer.Option(help="Also measure how often this teacher says the same.")
    ] = None,
    runs: Runs = Path("runs"),
    out: Annotated[
        Path | None,
        typer.Option(
            help="Of one student, the JSON; default: evaluation.json beside it. Of several, the "
            "directory of table, picture and page; default: RUNS/evaluations/SET-DIGEST."
        ),
    ] = None,
    device: Device = "auto",
    trust_builder: Trust = False,
) -> None:
    """Accuracy on a labeled set, and cost: top-1, top-5 above 5 classes, per class, calibration;
    parameters, multiply-adds, bytes, images a second here. Bad images are counted.

    Several students see the same images in one pass and come out as a table, a picture of accuracy
    against cost with its Pareto front, and a page of both.

    Example: winnow evaluate runs/students/* /data/val --teacher r34
    """
    with user_errors():
        from distill.run import evaluate

        evaluate(student, labeled, teacher, runs, out, device, trust_builder)


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
