"""The commands that write a teacher directory: import-teacher and train-teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from distill.teachers.config import ImportTeacherConfig, TrainTeacherConfig
from indexes.command.console import Answer
from indexes.command.options import command

if TYPE_CHECKING:
    from indexes.models.teacher import Teacher

app = typer.Typer(no_args_is_help=True, add_completion=False)


@command(app, TrainTeacherConfig)
def train_teacher(config: TrainTeacherConfig) -> Answer:
    """Report the teacher that was trained.

    Example: `winnow train-teacher /data/train --classes names.txt --out runs/teachers/r34`
    """
    from distill.teachers.train_teacher import train_teacher

    return _answer(train_teacher(config))


@command(app, ImportTeacherConfig)
def import_teacher(config: ImportTeacherConfig) -> Answer:
    """Report the teacher that was imported.

    Example: `winnow import-teacher --builder torchvision:resnet18 --weights r18.safetensors ...`
    """
    from distill.teachers.import_teacher import import_teacher

    return _answer(import_teacher(config))


def _answer(teacher: Teacher) -> Answer:
    card = teacher.card
    line = (
        f"{teacher.directory}: {card.builder}, {len(card.classes)} classes, "
        f"{card.input_size} pixels, digest {card.digest[:12]}"
    )
    return Answer({"directory": teacher.directory, "card": card}, [line])
