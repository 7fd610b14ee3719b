"""Train a net on a labeled set, so that experiments have a teacher whose data is known."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.data import augment
from distill.data.loader import InMemory, StepLoader, stored_geometry
from distill.data.sampler import EpochSampler
from distill.recipe import LR_PER_128
from distill.teachers.config import TrainTeacherConfig
from distill.teachers.files import class_names
from distill.training import optim
from distill.training.resume import is_finished
from indexes import artifact, devices
from indexes.command.progress import Progress
from indexes.images.decode import BadImage, Geometry, Pixels, load_view
from indexes.models.net import Net, build_net
from indexes.models.teacher import Teacher, load_teacher, save_teacher
from indexes.sources.spec import open_labeled, open_parts
from indexes.splitmix import Uint64

log = logging.getLogger(__name__)
CHUNK = 4096


def train_teacher(config: TrainTeacherConfig) -> Teacher:
    """Train a net by cross-entropy, with the views and the optimizer of distillation.

    All images stay decoded in memory. The net's mean and standard deviation are those of the data.
    If `out` already holds the net of these settings, nothing is trained.

    Raises ArtifactError if `out` holds a net of other settings, SourceError if the set has no
    labels, NetError if the builder is unknown, ValueError if the loss is not finite or no image
    can be decoded.

    Example::

        train_teacher(
            TrainTeacherConfig(labeled="train", classes=["cat", "dog"], out="runs/teachers/r34")
        )
    """
    labeled, names = str(config.labeled), class_names(config.classes)
    device = devices.choose(config.device)
    size, batch_size, seed = config.size, config.batch_size, config.seed
    lr = LR_PER_128 * batch_size / 128 if config.lr is None else config.lr
    inputs = {
        "labeled": [[part.name, part.fingerprint()] for part in open_parts(labeled)],
        "classes": names,
        "student": config.builder,
        "recipe": {
            "size": size, "epochs": config.epochs, "batch": batch_size, "lr": lr, "seed": seed
        },
    }  # fmt: skip
    if is_finished(config.out, inputs):
        log.info("%s already holds the net of these settings", config.out)
        return load_teacher(config.out, device=device)
    key_hash, labels_N, stored_NRR3 = _read(labeled, names, Geometry(size), device)
    sampler = EpochSampler(len(key_hash), batch_size, seed)
    images = InMemory(stored_NRR3, sampler)
    views = augment.Augmentation(size=size, seed=seed)
    loader = StepLoader(images, sampler, key_hash, views, per_image=1, num_views=0)
    mean, std = _moments(stored_NRR3)
    steps = max(1, round(config.epochs * len(key_hash) / batch_size))
    cuda = [torch.device(device).index or 0] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        net = build_net(config.builder, num_classes=len(names), mean=mean, std=std)
        _fit(net.to(device).train(), loader, labels_N, steps, batch_size, lr)
    record = {"inputs": inputs}
    save_teacher(config.out, net.eval(), classes=names, input_size=size, record=record)
    return load_teacher(config.out, device=device)


def _fit(
    net: Net, loader: StepLoader, labels_N: Tensor, steps: int, batch_size: int, lr: float
) -> None:
    device = str(labels_N.device)
    net.to(memory_format=torch.channels_last)
    optimizers = optim.make_optimizers(net.module)
    with Progress("train", steps * batch_size) as progress:
        for step, batch in enumerate(loader.steps(0, steps)):
            optim.set_learning_rate(optimizers, optim.learning_rate(step / steps, lr))
            with devices.autocast(device):
                _, _, logits_BC = net(batch.pixels)
            rows = torch.from_numpy(batch.index).to(device)
            loss = F.cross_entropy(logits_BC, labels_N[rows])
            net.module.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            for optimizer in optimizers.values():
                optimizer.step()
            is_last = step == steps - 1
            if (step % 100 == 99 or is_last) and not bool(torch.isfinite(loss)):
                raise ValueError(f"the loss is not finite at step {step + 1}: lower --lr")
            progress.add(batch_size)


def _read(
    labeled: str, classes: Sequence[str], geometry: Geometry, device: str
) -> tuple[Uint64, Tensor, Tensor]:
    """Key hashes [N], labels [N] and stored images [N, R, R, 3]; dropped images are logged."""
    geometry = stored_geometry(geometry)
    hashes, labels, pixels = [], [], []
    dropped: Counter[str] = Counter()
    samples = open_labeled(labeled, classes)
    with Progress("decode") as progress, ThreadPoolExecutor(devices.cores()) as pool:
        while chunk := list(islice(samples, CHUNK)):
            loaded = pool.map(lambda item: _load(item[0].data, geometry), chunk)
            for (sample, label), view in zip(chunk, loaded, strict=True):
                if isinstance(view, str):
                    dropped[view] += 1
                    continue
                hashes.append(artifact.hash64(sample.key.encode("utf-8", "surrogateescape")))
                labels.append(label)
                pixels.append(view)
            progress.add(len(chunk))
    for reason, count in dropped.items():
        log.warning("%s: dropped %d as %s", labeled, count, reason)
    if not pixels:
        raise ValueError(f"{labeled}: no image can be decoded: check that these files are images")
    stored = torch.from_numpy(np.stack(pixels)).to(device)
    return np.array(hashes, np.uint64), torch.tensor(labels, device=device), stored


def _load(data: bytes, geometry: Geometry) -> Pixels | str:
    try:
        return load_view(data, geometry)[0]
    except BadImage as error:
        return error.reason


def _moments(stored_NRR3: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over at most 10,000 images, in 0-1."""
    pixels: npt.NDArray[np.float64] = stored_NRR3[:10_000].cpu().numpy() / 255.0
    mean, std = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2)).clip(1e-3)
    return mean.round(4).tolist(), std.round(4).tolist()
