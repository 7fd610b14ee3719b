"""Teaching a net on a labelled set, so that experiments have a teacher whose data is known."""

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

from distill import data, optim, views
from distill.order import Order
from distill.resuming import finished_or_refused
from indexes import artefact, devices, images, nets, sources, teachers
from indexes.progress import Progress

CHUNK = 4096


def teach(
    labelled: str,
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
) -> teachers.Card:
    """Trains `builder` by cross-entropy with the views and the optimiser of distillation.

    All images stay decoded in memory. The net's mean and standard deviation are the data's own.
    A directory that holds this very net already is left alone. Raises ArtefactError for one of
    other settings, SourceError for a set without labels, NetError for an unknown builder.
    """
    inputs = {
        "labelled": [[part.name, part.fingerprint()] for part in sources.parts(labelled)],
        "classes": list(classes),
        "student": builder,
        "recipe": {"size": size, "epochs": epochs, "batch": batch_size, "lr": lr, "seed": seed},
    }
    if finished_or_refused(out, inputs):
        print(f"{out} holds this net already")
        return teachers.open(out).card
    key_hash, labels_N, stored = _read(labelled, classes, images.Geometry(size), device)
    order = Order(len(key_hash), batch_size, seed)
    source = data.Resident(stored, order)
    look = views.Look(size=size, seed=seed)
    feed = data.Feed(source, order, key_hash, look, per_image=1, num_views=0)
    mean, std = _moments(stored)
    steps = max(1, round(epochs * len(key_hash) / batch_size))
    cuda = [torch.device(device).index or 0] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        net = nets.build(builder, num_classes=len(classes), mean=mean, std=std)
        _fit(net.to(device).train(), feed, labels_N, steps, batch_size, lr, device)
    record = {"inputs": inputs}
    return teachers.save(out, net.eval(), classes=classes, input_size=size, record=record)


def _fit(
    net: nets.Net,
    feed: data.Feed,
    labels_N: Tensor,
    steps: int,
    batch_size: int,
    lr: float,
    device: str,
) -> None:
    net.to(memory_format=torch.channels_last)
    optimizers = optim.make(net.module)
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
    labelled: str, classes: Sequence[str], geometry: images.Geometry, device: str
) -> tuple[views.Uint64, Tensor, Tensor]:
    """Key hashes [N], labels [N] and stored images [N, R, R, 3]; what is dropped is told."""
    geometry = data.stored_geometry(geometry)
    hashes, labels, pixels = [], [], []
    dropped: Counter[str] = Counter()
    samples = sources.labelled(labelled, classes)
    with Progress("decode") as progress, ThreadPoolExecutor(devices.cores()) as pool:
        while chunk := list(islice(samples, CHUNK)):
            loaded = pool.map(lambda item: _load(item[0].data, geometry), chunk)
            for (sample, label), one in zip(chunk, loaded, strict=True):
                if isinstance(one, str):
                    dropped[one] += 1
                    continue
                hashes.append(artefact.hash64(sample.key.encode("utf-8", "surrogateescape")))
                labels.append(label)
                pixels.append(one)
            progress.add(len(chunk))
    if dropped:
        print(f"dropped: {dict(dropped)}")
    if not pixels:
        raise ValueError(f"{labelled}: not one image could be decoded")
    stored = torch.from_numpy(np.stack(pixels)).to(device)
    return np.array(hashes, np.uint64), torch.tensor(labels, device=device), stored


def _load(blob: bytes, geometry: images.Geometry) -> images.Pixels | str:
    try:
        return images.load(blob, geometry)[0]
    except images.BadImage as error:
        return error.reason


def _moments(stored_NRR3: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, of at most 10,000 images, in 0-1."""
    pixels: npt.NDArray[np.float64] = stored_NRR3[:10_000].cpu().numpy() / 255.0
    mean, std = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2)).clip(1e-3)
    return mean.round(4).tolist(), std.round(4).tolist()
