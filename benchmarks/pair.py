"""The inputs of the distillation benchmarks: one teacher, one student and the same images for all.

N images, B batch, R side of a stored image, C classes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexes import devices
from indexes.images.decode import load_view
from indexes.models.net import build_net
from indexes.models.teacher import Teacher, load_teacher
from indexes.shards.reader import open_shards

TEMPERATURE = 4.0
LR, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4

Steps = Callable[[int], None]
"""Trains for a number of steps; the next call continues from there."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The inputs of every contestant; the images are uint8 [N, R, R, 3] in memory."""

    images_NRR3: Tensor
    directory: Path
    student: str
    batch_size: int
    device: str

    def teacher(self) -> Teacher:
        """Load the teacher anew, so that no contestant gets a net that another one has changed."""
        return load_teacher(self.directory, device=self.device)

    def student_net(self) -> nn.Module:
        """Build the student with random weights, in training mode: normalized pixels to logits."""
        card = self.teacher().card
        net = build_net(self.student, num_classes=len(card.classes), input_size=card.input_size)
        return net.module.to(self.device).train()

    def normalized(self) -> Tensor:
        """Return the images as most code stores them: float32 [N, 3, R, R], normalized."""
        card = self.teacher().card
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (card.mean, card.std))
        return (self.images_NRR3.permute(0, 3, 1, 2).float() / 255 - mean) / std


def pair_of(args: argparse.Namespace) -> Pair:
    """Load the pair that the command line names and decode its images."""
    shards = open_shards(args.shards)
    teacher = load_teacher(args.teacher)
    shards.check_teacher(teacher.card.digest)
    rows = range(min(len(shards), args.images or len(shards)))
    pixels = [load_view(shards.read(row), teacher.geometry)[0] for row in rows]
    return Pair(
        images_NRR3=torch.from_numpy(np.stack(pixels)),
        directory=Path(args.teacher),
        student=args.student,
        batch_size=args.batch_size,
        device=args.device,
    )


def kd(student_BC: Tensor, teacher_BC: Tensor) -> Tensor:
    """Return T^2 KL(teacher || student) at temperature T for logits [B, C]; scalar, batch mean."""
    log_student = F.log_softmax(student_BC / TEMPERATURE, 1)
    soft_teacher = F.softmax(teacher_BC / TEMPERATURE, 1)
    return F.kl_div(log_student, soft_teacher, reduction="batchmean") * TEMPERATURE**2


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks that train."""
    options = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--shards", required=True, type=Path, help="a directory of shards")
    options.add_argument("--teacher", required=True, type=Path, help="a teacher directory")
    options.add_argument("--batch-size", type=int, default=128, help="images per step")
    options.add_argument("--steps", type=int, default=100, help="measured steps per round")
    options.add_argument("--rounds", type=int, default=3, help="rounds over all contestants")
    options.add_argument("--threads", type=int, default=devices.cores(), help="threads of torch")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    options.add_argument(
        "--scratch", type=Path, help="folder for the students; default: a temporary one"
    )
    return options


def begin(args: argparse.Namespace) -> None:
    """Set the device, the threads and the memory for all contestants, as winnow trains."""
    args.device = devices.choose(args.device)
    devices.keep_memory(args.device)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True  # every batch has the same shape


def plain(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options as JSON values, without the paths of files."""
    paths = ("shards", "teacher", "scratch", "corpus", "eval")
    return {name: value for name, value in vars(args).items() if name not in paths}
