"""The commands that train: distill, targets; students and methods list what they take. Thin."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distill import cli_students, cli_teachers
from indexes.cli import Device, Runs, Trust, user_errors

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.add_typer(cli_teachers.app)
app.add_typer(cli_students.app)


Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Compile the teacher's forward. Default: on a CPU, for more than 500,000 answers.",
    ),
]


class Keep(StrEnum):
    """What of the teacher's answers is kept."""

    logits = "logits"
    features = "features"
    map = "map"


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
        int | None, typer.Option(min=1, help="Steps of the optimizer, instead of --epochs.")
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
    targets: Annotated[
        Path | None,
        typer.Option(help="Answers that `winnow targets` kept; their views are trained on."),
    ] = None,
    color: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Views vary in brightness, contrast, saturation by so much. Default: 0.",
        ),
    ] = None,
    compiled: Compile = None,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Parts that a batch is taken in, to save memory.")
    ] = 1,
    ema: Annotated[
        float,
        typer.Option(
            min=0.0, max=0.99999, help="Save a running mean of the weights of this decay: 0.999."
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Initial weights, order and fresh views.")] = 0,
    evaluate_on: Annotated[
        str | None,
        typer.Option("--eval", help="A labeled set; read only after the last step."),
    ] = None,
    runs: Runs = Path("runs"),
    out: Annotated[
        Path | None,
        typer.Option(help="The student's directory (of several: their parent). Default: in RUNS."),
    ] = None,
    device: Device = "auto",
    memory_gib: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Images stay decoded on the device where they fit so many GiB, else they are "
            "streamed; 0: always. Default: half of its free memory, on a CPU at most 4.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Decoding processes of a stream. Default: a core each, up to 8."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget an earlier training in the same directory.")
    ] = False,
    trust_builder: Trust = False,
) -> None:
    """Train students on curated shards: they learn from the teacher, never from a label.

    Saves to RUNS/students/SHARDS-METHOD-STUDENT. After Ctrl-C run the same command again and it
    goes on where it stopped; after a kill, from its last checkpoint (one a minute). Several GPUs
    train together as torchrun --nproc-per-node 8 -m winnow distill ...

    Example: winnow distill --student 'resnet8x4 timm:mobilenetv3_small_050' --eval /data/val
    """
    with user_errors():
        from distill import distributed
        from distill.run import distill_students

        with distributed.init_distributed(device) as (team, device):
            num_stopped = distill_students(
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
                targets=targets,
                color=color,
                compiled=compiled,
                accumulate=accumulate,
                ema=ema,
                seed=seed,
                evaluate_on=evaluate_on,
                runs=runs,
                out=out,
                device=device,
                memory_gib=memory_gib,
                workers=workers,
                fresh=fresh,
                trust_builder=trust_builder,
                group=team,
            )
    if num_stopped:
        raise typer.Exit(1)


@app.command()
def targets(
    shards: Annotated[
        Path | None,
        typer.Option(help="Curated shards. Default: the last ones that `winnow select` wrote."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="Their teacher, if it is not under RUNS/teachers."),
    ] = None,
    views: Annotated[int, typer.Option(min=1, help="Views of each image.")] = 4,
    keep: Annotated[
        Keep,
        typer.Option(
            help="logits (kd, dfnd), features (odsd, eikd) or the whole last map (winnow, kd3, "
            "hidfd) beside them."
        ),
    ] = Keep.logits,
    top: Annotated[
        int,
        typer.Option(
            min=1,
            help="Logits kept of an answer of more than 1,024 classes; the others are kept as "
            "their logsumexp. As many as there are classes: all.",
        ),
    ] = 256,
    color: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="As --color of `winnow distill`.")
    ] = 0.0,
    compiled: Compile = None,
    seed: Annotated[int, typer.Option(help="Draws the views.")] = 0,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Ask again about a sample; say how far answers are apart."),
    ] = False,
    runs: Runs = Path("runs"),
    device: Device = "auto",
    trust_builder: Trust = False,
) -> None:
    """Ask the teacher once about V views of every image, for all students and seeds to come.

    Written to RUNS/targets; `winnow distill --views V` finds it (and makes it where it is not).
    A second call goes on where the first stopped, or adds the views that are missing.

    Example: winnow targets --views 8 --verify
    """
    with user_errors():
        from distill import distributed
        from distill.run import make_targets

        with distributed.init_distributed(device) as (team, device):
            make_targets(
                shards=shards,
                teacher=teacher,
                views=views,
                keep=keep.value,
                top=top,
                color=color,
                compiled=compiled,
                seed=seed,
                verify=verify,
                runs=runs,
                device=device,
                trust_builder=trust_builder,
                group=team,
            )


@app.command()
def students(
    search: Annotated[
        str | None, typer.Argument(help="Part of a name: look in timm and torchvision too.")
    ] = None,
) -> None:
    """List the nets that --student and --builder take; with a word, search all three libraries."""
    with user_errors():
        from distill import listing

        for line in listing.student_lines(search):
            print(line)


@app.command()
def methods() -> None:
    """List the ways to distil, each with the settings that --set takes."""
    with user_errors():
        from distill import listing

        for line in listing.method_lines():
            print(line)
