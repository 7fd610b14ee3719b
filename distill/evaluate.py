"""How good a student is: agreement with its teacher, and accuracy on a labelled set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distill import views
from indexes import devices, images, sources
from indexes.nets import Net
from indexes.progress import Progress
from indexes.teachers import Teacher

BATCH = 256
TOP = 5


@dataclass(frozen=True, kw_only=True)
class Result:
    """Shares in 0-1. `dropped`: images that could not be decoded, by reason; not in the rest."""

    num_images: int
    top1: float
    top5: float | None
    agreement: float | None
    per_class: dict[str, float | None]
    dropped: dict[str, int]


@torch.no_grad()
def predict(net: Net, stored_NRR3: Tensor, size: int) -> Tensor:
    """argmax of the logits of the canonical views of stored images [N, R, R, 3] -> [N] int64."""
    device = str(stored_NRR3.device)
    found = []
    for start in range(0, len(stored_NRR3), BATCH):
        stored = stored_NRR3[start : start + BATCH]
        pixels = views.cut(stored, views.canonical(len(stored), size), size)
        with devices.autocast(device):
            found.append(net(pixels)[2].argmax(1))
    return torch.cat(found)


def agreement(net: Net, stored_NRR3: Tensor, teacher_N: Tensor, size: int) -> float:
    """Share of stored images whose canonical view `net` puts in the teacher's class; 0-1."""
    was_training = net.module.training
    net.eval()
    share = (predict(net, stored_NRR3, size) == teacher_N).float().mean().item()
    net.train(was_training)
    return share


@torch.no_grad()
def evaluate(
    student: Teacher, labelled: str, *, teacher: Teacher | None = None, device: str = "cpu"
) -> Result:
    """Accuracy of `student` on a labelled set, and its agreement with `teacher` if given.

    `labelled` is what `sources.labelled` reads, which raises SourceError where labels are
    missing. Each net sees its own canonical view. ValueError when no image could be decoded.
    """
    classes = student.card.classes
    if teacher is not None and teacher.card.classes != classes:
        raise ValueError(f"{student.directory} and {teacher.directory} have different classes")
    nets = [one for one in (student, teacher) if one is not None]
    dropped: Counter[str] = Counter()
    labels, tops, agreed = [], [], 0
    with Progress("evaluate") as progress, ThreadPoolExecutor(devices.cores()) as pool:
        samples = sources.labelled(labelled, classes)
        while chunk := list(islice(samples, BATCH)):
            loaded = list(pool.map(lambda item: _load(item[0].data, nets), chunk))
            dropped.update(one for one in loaded if isinstance(one, str))
            whole = [
                (label, pixels)
                for (_, label), pixels in zip(chunk, loaded, strict=True)
                if not isinstance(pixels, str)
            ]
            if whole:
                labels += [label for label, _ in whole]
                answers = [
                    _answer(net, [pixels[which] for _, pixels in whole], device)
                    for which, net in enumerate(nets)
                ]
                tops.append(answers[0].topk(min(TOP, len(classes)), dim=1).indices.cpu())
                agreed += int((answers[0].argmax(1) == answers[-1].argmax(1)).sum())
            progress.add(len(chunk))
    if not labels:
        raise ValueError(f"{labelled}: not one image could be decoded ({dict(dropped)})")
    hits = torch.cat(tops) == torch.tensor(labels)[:, None]
    return Result(
        num_images=len(labels),
        top1=hits[:, 0].float().mean().item(),
        top5=hits.any(1).float().mean().item() if len(classes) > TOP else None,
        agreement=agreed / len(labels) if teacher is not None else None,
        per_class=dict(_per_class(hits[:, 0].numpy(), np.array(labels), classes)),
        dropped=dict(dropped),
    )


def _load(data: bytes, nets: list[Teacher]) -> list[images.Pixels] | str:
    try:
        return [images.load(data, net.geometry)[0] for net in nets]
    except images.BadImage as error:
        return error.reason


def _answer(net: Teacher, pixels: list[images.Pixels], device: str) -> Tensor:
    pixels_BHW3 = torch.from_numpy(np.stack(pixels)).to(device)
    with devices.autocast(device):
        _, _, logits_BC = net(images.unit(pixels_BHW3))
    return logits_BC


def _per_class(
    hits: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.int64],
    classes: tuple[str, ...],
) -> Iterator[tuple[str, float | None]]:
    """(name, accuracy) per class, None without images; names that repeat get their number."""
    seen: Counter[str] = Counter(classes)
    for number, name in enumerate(classes):
        mine = labels == number
        share = float(hits[mine].mean()) if mine.any() else None
        yield (name if seen[name] == 1 else f"{name} ({number})"), share
