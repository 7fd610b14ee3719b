"""Teaching a net on a labeled set, so that experiments have a teacher whose data is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.data import augment
from distill.data.loader import InMemory, StepLoader, stored_geometry
from distill.data.sampler import EpochSampler
from distill.training import optim
from distill.training.resume import finished_or_refused
from indexes import artifact, devices
from indexes.images.decode import BadImage, Geometry, Pixels, load_view
from indexes.models.net import Net, build_net
from indexes.models.teacher import Card, load_teacher, save_teacher
from indexes.progress import Progress
from indexes.sources.spec import open_labeled, open_parts

CHUNK = 4096


def train_teacher(
    labeled: str,
    classes: Sequence[str],
    builder: str,
    out: Path,
    *,
    size: int = 32,
    epochs: float = 30,
    batch_size: int = 128,
    lr: float = 0.1,
    seed: int = 0,
    device: str = "cpu",
) -> Card:
    """Trains `builder` by cross-entropy with the views and the optimizer of distillation.

    All images stay decoded in memory. The net's mean and standard deviation are the data's own.
    A directory that holds this very net already is left alone. Raises ArtifactError for one of
    other settings, SourceError for a set without labels, NetError for an unknown builder.
    """
    inputs = {
        "labeled": [[part.name, part.fingerprint()] for part in open_parts(labeled)],
        "classes": list(classes),
        "student": builder,
        "recipe": {"size": size, "epochs": epochs, "batch": batch_size, "lr": lr, "seed": seed},
    }
    if finished_or_refused(out, inputs):
        print(f"{out} holds this net already")
        return load_teacher(out).card
    key_hash, labels_N, stored = _read(labeled, classes, Geometry(size), device)
    order = EpochSampler(len(key_hash), batch_size, seed)
    source = InMemory(stored, order)
    look = augment.Augmentation(size=size, seed=seed)
    feed = StepLoader(source, order, key_hash, look, per_image=1, num_views=0)
    mean, std = _moments(stored)
    steps = max(1, round(epochs * len(key_hash) / batch_size))
    cuda = [torch.device(device).index or 0] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        net = build_net(builder, num_classes=len(classes), mean=mean, std=std)
        _fit(net.to(device).train(), feed, labels_N, steps, batch_size, lr, device)
    record = {"inputs": inputs}
    return save_teacher(out, net.eval(), classes=classes, input_size=size, record=record)


def _fit(
    net: Net,
    feed: StepLoader,
    labels_N: Tensor,
    steps: int,
    batch_size: int,
    lr: float,
    device: str,
) -> None:
    net.to(memory_format=torch.channels_last)
    optimizers = optim.make_optimizers(net.module)
    with Progress("teach", steps * batch_size) as progress:
        for step, seen in enumerate(feed.steps(0, steps)):
            optim.set_learning_rate(optimizers, optim.learning_rate(step / steps, lr))
            with devices.autocast(device):
                _, _, logits_BC = net(seen.pixels)
            loss = F.cross_entropy(logits_BC, labels_N[torch.from_numpy(seen.index).to(device)])
            net.module.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            for optimizer in optimizers.values():
                optimizer.step()
            last = step == steps - 1
            if (step % 100 == 99 or last) and not bool(torch.isfinite(loss)):
                raise ValueError(f"the loss is not finite at step {step + 1}: try a lower --lr")
            progress.add(batch_size)


def _read(
    labeled: str, classes: Sequence[str], geometry: Geometry, device: str
) -> tuple[augment.Uint64, Tensor, Tensor]:
    """Key hashes [N], labels [N] and stored images [N, R, R, 3]; what is dropped is told."""
    geometry = stored_geometry(geometry)
    hashes, labels, pixels = [], [], []
    dropped: Counter[str] = Counter()
    samples = open_labeled(labeled, classes)
    with Progress("decode") as progress, ThreadPoolExecutor(devices.cores()) as pool:
        while chunk := list(islice(samples, CHUNK)):
            loaded = pool.map(lambda item: _load(item[0].data, geometry), chunk)
            for (sample, label), one in zip(chunk, loaded, strict=True):
                if isinstance(one, str):
                    dropped[one] += 1
                    continue
                hashes.append(artifact.hash64(sample.key.encode("utf-8", "surrogateescape")))
                labels.append(label)
                pixels.append(one)
            progress.add(len(chunk))
    if dropped:
        print(f"dropped: {dict(dropped)}")
    if not pixels:
        raise ValueError(f"{labeled}: not one image could be decoded")
    stored = torch.from_numpy(np.stack(pixels)).to(device)
    return np.array(hashes, np.uint64), torch.tensor(labels, device=device), stored


def _load(blob: bytes, geometry: Geometry) -> Pixels | str:
    try:
        return load_view(blob, geometry)[0]
    except BadImage as error:
        return error.reason


def _moments(stored_NRR3: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, of at most 10,000 images, in 0-1."""
    pixels: npt.NDArray[np.float64] = stored_NRR3[:10_000].cpu().numpy() / 255.0
    mean, std = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2)).clip(1e-3)
    return mean.round(4).tolist(), std.round(4).tolist()
