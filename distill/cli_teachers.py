"""The commands that make a teacher directory: teach, import-teacher. Thin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from indexes.cli import Device, Trust, user_errors

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command()
def teach(
    labeled: Annotated[
        str, typer.Argument(help="A labeled set: a folder per class, tars with .cls, Parquet.")
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
    """Train a teacher on a labeled set, for experiments where the lost data is not lost.

    Example: winnow teach /data/cifar10/train --classes names.txt --out runs/teachers/r34
    """
    with user_errors():
        from distill.teachers.import_teacher import read_classes
        from distill.teachers.train_teacher import train_teacher
        from distill.train import LR_PER_128
        from indexes import devices

        card = train_teacher(
            labeled,
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
    crop_frac: Annotated[float | None, typer.Option(help="Center crop / shorter side.")] = None,
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
    with user_errors():
        from distill.teachers.import_teacher import import_teacher, json_object, three

        card = import_teacher(
            builder,
            weights,
            classes,
            out,
            mean=three("mean", mean),
            std=three("std", std),
            input_size=input_size,
            crop_frac=crop_frac,
            interpolation=interpolation,
            builder_args=json_object("args", builder_args),
            prompts=prompts or None,
            accuracy=accuracy,
            trust_builder=trust_builder,
        )
        print(
            f"{out}: {card.builder}, {len(card.classes)} classes, {card.input_size} pixels, "
            f"digest {card.digest[:12]}"
        )
