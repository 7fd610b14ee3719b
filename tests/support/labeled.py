"""Labeled sets of synthetic images, and untrained nets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from indexes.models.net import build_net
from indexes.models.teacher import Teacher, load_teacher, save_teacher
from tests.support import distillation


def make_labeled(directory: Path, num: int = 20, size: int = distillation.SIZE) -> str:
    """Write one folder per class; every fifth image is in the folder of a wrong class."""
    for number in range(num):
        folder = directory / distillation.CLASSES[label_of(number)]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(distillation.draw_image(number, size))
    return str(directory)


def label_of(number: int) -> int:
    """Return the class in which `make_labeled` puts an image."""
    return (number + (number % 5 == 0)) % 3


def make_student(directory: Path, builder: str, size: int = 32, **card: Any) -> Teacher:
    """Save a net of random weights."""
    net = build_net(builder, num_classes=3)
    save_teacher(directory, net, input_size=size, **{"classes": distillation.CLASSES, **card})
    return load_teacher(directory)
