"""A small setup: synthetic 32-pixel images of 3 classes, a teacher, and shards of both."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from distill.data import augment
from indexes.images.decode import Geometry, load_view
from indexes.models.net import build_net
from indexes.models.teacher import Teacher, load_teacher, save_teacher
from indexes.shards.reader import Shards, open_shards
from indexes.shards.writer import ShardWriter

CLASSES = ("ant", "bee", "cat")
SIZE = 32


def draw_image(number: int, size: int = SIZE) -> bytes:
    """Draw a PNG of class `number` modulo 3: the color of the class, stripes and noise."""
    generator = np.random.default_rng(number)
    pixels = generator.integers(0, 90, (size, size, 3))
    pixels[..., number % 3] += 120
    pixels[:: 2 + number % 3] += 40
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def make_teacher(directory: Path, *, size: int = SIZE, seed: int = 5) -> Teacher:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = build_net("resnet8", num_classes=3, mean=(0.4,) * 3, std=(0.25,) * 3)
        net.eval()
        weight_CD, bias_C = net.head
        side = augment.stored_side(size)
        pixels = [load_view(draw_image(number, side), Geometry(size))[0] for number in range(30)]
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            # Center and scale the head, so that the logits differ between images.
            weight_CD.mul_(20)
            bias_C.copy_(-(net(images)[1] @ weight_CD.T).mean(0))
    save_teacher(directory, net, classes=CLASSES, input_size=size)
    return load_teacher(directory)


def make_shards(
    directory: Path,
    teacher: Teacher,
    num: int = 60,
    *,
    labels: Any = 0,
    weights: Any = 1.0,
    images: list[bytes] | None = None,
) -> Shards:
    writer = ShardWriter(directory, "plan", CLASSES)
    images = images or [draw_image(number) for number in range(num)]
    cut = num // 2
    for shard, rows in enumerate((range(cut), range(cut, num))):
        writer.write(
            shard,
            keys=[f"key-{row}" for row in rows],
            exts=["png"] * len(rows),
            images=[images[row] for row in rows],
            columns={
                "label": np.broadcast_to(labels, num)[list(rows)],
                "weight": np.broadcast_to(weights, num)[list(rows)].astype(np.float32),
            },
            logits=np.zeros((len(rows), 3)),
        )
    body = {"teacher": {"digest": teacher.card.digest, "input_size": teacher.card.input_size}}
    writer.finish(2, body)
    return open_shards(directory)
