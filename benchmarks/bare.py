"""The floors of distillation: the loop that a user writes first, and the best that we can write.

Both have every image in memory and the same nets, loss, optimizer and batch. Neither logs, saves,
measures or synchronizes with the device. N images, B batch, S side of an image.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.pair import LR, MOMENTUM, WEIGHT_DECAY, Pair, Steps, kd
from indexes import devices


class Augmented(Dataset[tuple[Tensor, int]]):
    """Normalized images [N, 3, S, S], cropped and flipped individually; every label is 0."""

    def __init__(self, images_N3SS: Tensor) -> None:
        self.images_N3SS = images_N3SS
        side = images_N3SS.shape[-1]
        self.transform = transforms.Compose(
            [transforms.RandomCrop(side, padding=side // 8), transforms.RandomHorizontalFlip()]
        )

    def __len__(self) -> int:
        return len(self.images_N3SS)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.transform(self.images_N3SS[row]), 0


def loader(pair: Pair, workers: int) -> DataLoader[tuple[Tensor, int]]:
    """Return a DataLoader over `Augmented` with the usual settings."""
    return DataLoader(
        Augmented(pair.normalized()),
        batch_size=pair.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=pair.device.startswith("cuda"),
    )


def naive(pair: Pair, workers: int) -> Steps:
    """Return the naive loop: float32, a DataLoader, the teacher under no_grad, plain SGD."""
    data = loader(pair, workers)
    teacher, student = pair.teacher().net.module, pair.student_net()
    optimizer = torch.optim.SGD(
        student.parameters(), lr=LR, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY
    )

    def run(steps: int) -> None:
        endless = itertools.chain.from_iterable(itertools.repeat(data))
        for images, _ in itertools.islice(endless, steps):
            images = images.to(pair.device, non_blocking=True)
            with torch.no_grad():
                teacher_logits = teacher(images)
            loss = kd(student(images), teacher_logits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A variant of the best loop.

    `teacher` is plain; folded, with its BatchNorms merged into its convolutions and its weights in
    the compute precision; or compiled, which is folded and compiled by inductor (on a GPU with
    CUDA graphs).
    """

    teacher: Literal["plain", "folded", "compiled"] = "plain"
    compile_student: bool = False
    bf16: bool = True
    channels_last: bool = True

    def __str__(self) -> str:
        words = [f"{self.teacher} teacher"] + ["compiled student"] * self.compile_student
        words += ["bf16" if self.bf16 else "fp32"] + ["channels_last"] * self.channels_last
        return ", ".join(words)


VARIANTS = (
    Variant(bf16=False),
    Variant(channels_last=False),
    Variant(),
    Variant(teacher="folded"),
    Variant(teacher="compiled"),
    Variant(teacher="compiled", compile_student=True),
)


class Views:
    """uint8 images on the device, padded once; a batch is cropped by one gather, then flipped."""

    def __init__(self, pair: Pair) -> None:
        self.size = side = pair.images_NRR3.shape[1]
        self.batch_size, self.device, self.num_offsets = (
            pair.batch_size,
            pair.device,
            side // 8 * 2 + 1,
        )
        margin = side // 8
        padded = F.pad(pair.images_NRR3, (0, 0, margin, margin, margin, margin)).to(pair.device)
        # [N, num_offsets, num_offsets, S, S, 3]: every crop of every image, without a copy.
        self.crops = padded.unfold(1, side, 1).unfold(2, side, 1).permute(0, 1, 2, 4, 5, 3)
        card = pair.teacher().card
        mean, std = (torch.tensor(values, device=pair.device) for values in (card.mean, card.std))
        self.scale, self.shift = 1 / (255 * std), -mean / std

    def __iter__(self) -> Iterator[Tensor]:
        """Yield normalized batches float32 [B, 3, S, S] in channels_last, epoch after epoch."""
        while True:
            order = torch.randperm(len(self.crops), device=self.device)
            for index in order.split(self.batch_size):
                if len(index) == self.batch_size:
                    yield self.batch(index)

    def batch(self, index_B: Tensor) -> Tensor:
        """Return the images of the rows [B], each randomly cropped and flipped: [B, 3, S, S]."""
        offsets = torch.randint(self.num_offsets, (2, len(index_B)), device=self.device)
        pixels = self.crops[index_B, offsets[0], offsets[1]]
        flip = torch.rand(len(index_B), device=self.device) < 0.5
        pixels = torch.where(flip[:, None, None, None], pixels.flip(2), pixels)
        return torch.addcmul(self.shift, pixels.float(), self.scale).permute(0, 3, 1, 2)


def best(pair: Pair, variant: Variant) -> Steps:
    """Return the best loop, without any avoidable work: see `Views` and `Variant`."""
    views = iter(Views(pair))
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    bf16 = variant.bf16 and devices.has_bf16(pair.device)
    dtype = torch.bfloat16 if bf16 and variant.teacher != "plain" else torch.float32
    teacher = _teacher(pair, variant).to(dtype=dtype, memory_format=layout)
    student = pair.student_net().to(memory_format=layout)
    graphs = {"triton.cudagraphs": pair.device.startswith("cuda")}
    forward = torch.compile(student, options=graphs) if variant.compile_student else student
    if variant.teacher == "compiled":
        teacher = torch.compile(teacher, options={**graphs, "freezing": True})
    optimizer = torch.optim.SGD(
        student.parameters(),
        lr=LR,
        momentum=MOMENTUM,
        nesterov=True,
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )

    def run(steps: int) -> None:
        for images in itertools.islice(views, steps):
            images = images.contiguous(memory_format=layout)
            with devices.autocast(pair.device, enabled=bf16):
                with torch.no_grad() if variant.teacher == "compiled" else torch.inference_mode():
                    teacher_logits = teacher(images.to(dtype))
                student_logits = forward(images)
            loss = kd(student_logits.float(), teacher_logits.float())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return run


def _teacher(pair: Pair, variant: Variant) -> nn.Module:
    module = pair.teacher().net.module
    return module if variant.teacher == "plain" else fuse(module)
