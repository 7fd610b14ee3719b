"""A small setup for generators: a teacher for 16-pixel images, shards, and short trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from indexes.images.decode import Geometry, load_view
from indexes.models.net import build_net
from indexes.models.teacher import Teacher, load_teacher, save_teacher
from indexes.shards.reader import Shards, open_shards
from indexes.shards.writer import ShardWriter
from pipeline.generation.dataset import read_images
from pipeline.generation.train import fit_generator, read_generator
from pipeline.generators import hidfd
from pipeline.generators._hidfd_training import Training
from tests.support.corpora import CLASSES, encoded

SIDE = 16
World = tuple[Shards, Teacher]
TINY: dict[str, Any] = {"width": 2, "batch": 8, "epochs": 2.0, "update_steps": 2}


def color_teacher(directory: Path, *, seed: int = 8) -> Teacher:
    """Make an untrained ResNet-8; its head is centered and scaled, so that its logits differ."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = build_net("resnet8", num_classes=len(CLASSES), mean=(0.4,) * 3, std=(0.25,) * 3)
        net.eval()
        weight_CD, bias_C = net.head
        pixels = [load_view(encoded(number), Geometry(SIDE))[0] for number in range(30)]
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            weight_CD.mul_(20)
            bias_C.copy_(-(net(images)[1] @ weight_CD.T).mean(0))
    save_teacher(directory, net, classes=CLASSES, input_size=SIDE)
    return load_teacher(directory)


def make_shards(directory: Path, teacher: Teacher, num: int = 24) -> Shards:
    """Write `num` pictures, labeled by the teacher."""
    images = [encoded(number) for number in range(num)]
    pixels = np.stack([load_view(image, teacher.geometry)[0] for image in images])
    _, _, logits = teacher(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)
    writer = ShardWriter(directory, "plan", CLASSES)
    writer.write(
        0,
        keys=[f"key-{row}" for row in range(num)],
        exts=["jpg"] * num,
        images=images,
        columns={"label": logits.argmax(1).numpy(), "weight": np.ones(num, np.float32)},
        logits=logits.numpy(),
    )
    entry = {"digest": teacher.card.digest, "input_size": SIDE}
    writer.finish(1, {"teacher": entry, "funnel": {"in": num, "dropped": {}, "kept": num}})
    return open_shards(directory)


def start_training(shards: Shards, teacher: Teacher, **settings: Any) -> Training:
    """Return a new training of hidfd."""
    config = hidfd.Config(**{**TINY, **settings})
    images = read_images(shards, teacher, hidfd.side(config, SIDE), "cpu")
    return hidfd.trainer(config, images, teacher, seed=0, device="cpu")


def train_to_end(trainer: Training, directory: Path) -> dict[str, torch.Tensor]:
    """Train to the end and return the tensors."""
    body = fit_generator(trainer, directory, "digest")
    return read_generator(directory, body)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Return whether two sets of tensors are bit-equal."""
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
