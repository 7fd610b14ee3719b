"""What the distilling benchmarks train: one teacher, one student, the same images for everyone.

N images, B of a step, R the side of a stored image, C classes.
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
"""Trains for so many steps, and goes on from there when it is called again."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What every contestant is given; images uint8 [N, R, R, 3] in memory."""

    images_NRR3: Tensor
    directory: Path
    student: str
    batch_size: int
    device: str

    def teacher(self) -> Teacher:
        """The teacher, opened anew: nobody gets a net that another one has changed."""
        return load_teacher(self.directory, device=self.device)

    def student_net(self) -> nn.Module:
        """The student with random weights, normalized pixels to logits, in training mode."""
        card = self.teacher().card
        net = build_net(self.student, num_classes=len(card.classes), input_size=card.input_size)
        return net.module.to(self.device).train()

    def normal(self) -> Tensor:
        """The images as most code keeps them: float32 [N, 3, R, R], normalized."""
        card = self.teacher().card
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (card.mean, card.std))
        return (self.images_NRR3.permute(0, 3, 1, 2).float() / 255 - mean) / std


def pair_of(args: argparse.Namespace) -> Pair:
    """The pair that the command line names, every image of the shards decoded."""
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
    """T^2 KL(teacher || student) of the softened softmaxes, mean over the batch."""
    log_student = F.log_softmax(student_BC / TEMPERATURE, 1)
    soft_teacher = F.softmax(teacher_BC / TEMPERATURE, 1)
    return F.kl_div(log_student, soft_teacher, reduction="batchmean") * TEMPERATURE**2


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options of the benchmarks that train."""
    found = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--shards", required=True, type=Path)
    found.add_argument("--teacher", required=True, type=Path, help="a teacher directory")
    found.add_argument("--batch-size", type=int, default=128)
    found.add_argument("--steps", type=int, default=100, help="measured steps of a round")
    found.add_argument("--rounds", type=int, default=3)
    found.add_argument("--threads", type=int, default=devices.cores())
    found.add_argument("--device", default="auto")
    found.add_argument("--scratch", type=Path, help="where students go; default: a temporary one")
    return found


def begin(args: argparse.Namespace) -> None:
    """The same device, threads and memory for all that follows, as a training by winnow has it."""
    args.device = devices.choose(args.device)
    devices.keep_memory(args.device)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True  # every batch has the same shape


def plain(args: argparse.Namespace) -> dict[str, Any]:
    """The options as JSON, without the paths of files."""
    places = ("shards", "teacher", "scratch", "corpus", "eval")
    return {name: value for name, value in vars(args).items() if name not in places}
