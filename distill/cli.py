"""The online commands: distill, evaluate, students, methods; cli_teachers, cli_ship too. Thin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill import cli_ship, cli_teachers
from indexes.cli import Device, Runs, Trust, friendly

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.add_typer(cli_teachers.app)
app.add_typer(cli_ship.app)


@app.command()
def distill(
    shards: Annotated[
        Path | None,
        typer.Option(help="Curated shards. Default: the last ones that `winnow select` wrote."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="A teacher directory, or a name under RUNS/teachers. Default: the one that the "
            "shards name; another one is refused."
        ),
    ] = None,
    student: Annotated[
        list[str] | None,
        typer.Option(
            help="A student: resnet8x4 (see `winnow students`), timm:NAME, torchvision:NAME, with "
            "arguments behind it, as in timm:NAME:patch_size=4. Repeat, or separate by spaces: all "
            "are fed by one pass over the images. "
            "Default: resnet8x4 up to 64 pixels, timm:mobilenetv3_small_050 above."
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="winnow, kd, dfnd, odsd, eikd, kd3, hidfd (see `winnow methods`), or your own .py "
            "file. winnow, kd3 and hidfd save the student with a projector: kd leaves it as it is."
        ),
    ] = "winnow",
    preset: Annotated[
        str | None,
        typer.Option(
            help="A known setting of the method and its training, as cifar10_r34_r18 (see `winnow "
            "methods`); what else you say here goes before it."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the method, key=value; repeat or space-separate."),
    ] = None,
    mix: Annotated[
        Path | None,
        typer.Option(help="More shards, of the same teacher: painted ones beside real ones."),
    ] = None,
    mix_frac: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Their share of every batch.")
    ] = 0.5,
    epochs: Annotated[
        float | None,
        typer.Option(min=0.001, help="How often each image is seen, in views. Default: 30."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the optimiser, instead of --epochs.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=4, help="Views in a batch. Default: 128.")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate. Default: 0.1 per 128 in a batch.")
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(help="sgd or muon. Default: the method's; muon for winnow, sgd elsewhere."),
    ] = None,
    views: Annotated[
        int,
        typer.Option(
            min=0,
            help="0: a fresh view at each visit, the teacher runs along. V: V fixed views of each "
            "image; the teacher is asked about each one once, for every later seed and student.",
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Initial weights, order and fresh views.")] = 0,
    evaluate_on: Annotated[
        str | None,
        typer.Option("--eval", help="A labelled set; read only after the last step."),
    ] = None,
    runs: Runs = Path("runs"),
    out: Annotated[
        Path | None,
        typer.Option(help="The student's directory (of several: their parent). Default: in RUNS."),
    ] = None,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Decoding processes, when the images do not fit the memory."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget an earlier training in the same directory.")
    ] = False,
    trust_builder: Trust = False,
) -> None:
    """Train students on curated shards: they learn from the teacher, never from a label.

    Saves to RUNS/students/SHARDS-METHOD-STUDENT. After Ctrl-C run the same command again and it
    goes on where it stopped; after a kill, from its last checkpoint (one a minute).

    Example: winnow distill --student 'resnet8x4 timm:mobilenetv3_small_050' --eval /data/val
    """
    with friendly():
        from distill import command

        num_diverged = command.distill_students(
            shards=shards,
            teacher=teacher,
            students=student or [],
            method=method,
            preset=preset,
            settings=settings or [],
            mix=mix,
            mix_frac=mix_frac,
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            lr=lr,
            optimizer=optimizer,
            views=views,
            seed=seed,
            evaluate_on=evaluate_on,
            runs=runs,
            out=out,
            device=device,
            workers=workers,
            fresh=fresh,
            trust_builder=trust_builder,
        )
    if num_diverged:
        raise typer.Exit(1)


@app.command()
def evaluate(
    student: Annotated[
        str, typer.Argument(help="A student or teacher: a directory, or a name under RUNS.")
    ],
    labelled: Annotated[
        str, typer.Argument(help="A labelled set: a folder per class, tars with .cls, Parquet.")
    ],
    teacher: Annotated[
        str | None, typer.Option(help="Also measure how often this teacher says the same.")
    ] = None,
    runs: Runs = Path("runs"),
    out: Annotated[
        Path | None, typer.Option(help="The JSON. Default: evaluation.json beside the student.")
    ] = None,
    device: Device = "auto",
    trust_builder: Trust = False,
) -> None:
    """Accuracy on a labelled set: top-1, top-5 above 5 classes, per class; bad images counted.

    Example: winnow evaluate runs/students/in21k-winnow-resnet8x4 /data/val --teacher r34
    """
    with friendly():
        from distill import command

        command.evaluate(student, labelled, teacher, runs, out, device, trust_builder)


@app.command()
def students(
    search: Annotated[
        str | None, typer.Argument(help="Part of a name: look in timm and torchvision too.")
    ] = None,
) -> None:
    """List the nets that --student and --builder take; with a word, search all three libraries."""
    with friendly():
        from distill import listing

        for line in listing.student_lines(search):
            print(line)


@app.command()
def methods() -> None:
    """List the ways to distil, each with the settings that --set takes."""
    with friendly():
        from distill import listing

        for line in listing.method_lines():
            print(line)
