"""The online commands: distill, evaluate, teach, import-teacher, students, methods. Thin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from indexes.cli import Device, Runs, Trust, friendly

app = typer.Typer(no_args_is_help=True, add_completion=False)


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
def teach(
    labelled: Annotated[
        str, typer.Argument(help="A labelled set: a folder per class, tars with .cls, Parquet.")
    ],
    classes: Annotated[Path, typer.Option(help="Class names: one per line, or a JSON list.")],
    out: Annotated[Path, typer.Option(help="The directory, as in RUNS/teachers/NAME.")],
    builder: Annotated[
        str, typer.Option(help="A net: resnet34, wrn_16_2, timm:NAME, torchvision:NAME.")
    ] = "resnet34",
    size: Annotated[int, typer.Option(min=8, help="Side of the input in pixels.")] = 32,
    epochs: Annotated[float, typer.Option(min=0.001, help="Passes over the set.")] = 30.0,
    batch_size: Annotated[int, typer.Option(min=2, help="Images in a batch.")] = 128,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate. Default: 0.1 per 128 in a batch.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Initial weights, order and views.")] = 0,
    device: Device = "auto",
) -> None:
    """Train a teacher on a labelled set, for experiments where the lost data is not lost.

    Example: winnow teach /data/cifar10/train --classes names.txt --out runs/teachers/r34
    """
    with friendly():
        from distill import teach as teaching
        from distill.importing import read_classes
        from distill.train import LR_PER_128
        from indexes import devices

        card = teaching.teach(
            labelled,
            read_classes(classes),
            builder,
            out,
            size=size,
            epochs=epochs,
            batch_size=batch_size,
            lr=LR_PER_128 * batch_size / 128 if lr is None else lr,
            seed=seed,
            device=devices.choose(device),
        )
        print(f"{out}: {card.builder}, {len(card.classes)} classes, digest {card.digest[:12]}")


@app.command("import-teacher")
def import_teacher(
    builder: Annotated[
        str,
        typer.Option(
            help="timm:NAME, torchvision:NAME, open_clip:NAME (zero-shot), a net of ours, or "
            "module:function with --trust-builder."
        ),
    ],
    weights: Annotated[Path, typer.Option(help="A .safetensors, or a .pt/.pth state dict.")],
    classes: Annotated[Path, typer.Option(help="Class names: one per line, or a JSON list.")],
    out: Annotated[Path, typer.Argument(help="The teacher's directory, as in RUNS/teachers/NAME.")],
    mean: Annotated[str | None, typer.Option(help="Three numbers: 0.49,0.48,0.45.")] = None,
    std: Annotated[str | None, typer.Option(help="Three numbers: 0.25,0.24,0.26.")] = None,
    input_size: Annotated[int | None, typer.Option(min=8, help="Side in pixels.")] = None,
    crop_frac: Annotated[float | None, typer.Option(help="Centre crop / shorter side.")] = None,
    interpolation: Annotated[str | None, typer.Option(help="bilinear, bicubic, ...")] = None,
    builder_args: Annotated[
        str | None, typer.Option("--args", help="The builder's arguments as a JSON object.")
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", help="open_clip: 'a photo of a {}.'; repeat for an ensemble."),
    ] = None,
    accuracy: Annotated[
        float | None, typer.Option(min=0, max=1, help="As the vendor states it, 0-1.")
    ] = None,
    trust_builder: Trust = False,
) -> None:
    """Make a teacher directory of a vendor's weights and class names. Nothing is unpickled.

    What is not given comes from timm's or torchvision's own configuration of the net.

    Example: winnow import-teacher --builder torchvision:resnet50 --weights r50.safetensors
    --classes names.txt runs/teachers/r50
    """
    with friendly():
        from distill import command
        from distill.importing import import_teacher as run

        card = run(
            builder,
            weights,
            classes,
            out,
            mean=command.three("mean", mean),
            std=command.three("std", std),
            input_size=input_size,
            crop_frac=crop_frac,
            interpolation=interpolation,
            builder_args=command.json_object("args", builder_args),
            prompts=prompts or None,
            accuracy=accuracy,
            trust_builder=trust_builder,
        )
        print(
            f"{out}: {card.builder}, {len(card.classes)} classes, {card.input_size} pixels, "
            f"digest {card.digest[:12]}"
        )


@app.command()
def students(
    search: Annotated[
        str | None, typer.Argument(help="Part of a name: look in timm and torchvision too.")
    ] = None,
) -> None:
    """List the nets that --student and --builder take; with a word, search all three libraries."""
    with friendly():
        from distill import command

        for line in command.student_lines(search):
            print(line)


@app.command()
def methods() -> None:
    """List the ways to distil, each with the settings that --set takes."""
    with friendly():
        from distill import command

        for line in command.method_lines():
            print(line)
