"""How good students are: accuracy, calibration and agreement with their teacher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distill.data import augment
from distill.evaluation.calibration import expected_calibration_error
from indexes import devices
from indexes.command.progress import Progress
from indexes.images.decode import BadImage, Geometry, Pixels, load_view, to_unit
from indexes.models.net import Net
from indexes.models.teacher import Teacher
from indexes.sources.spec import Sample, open_labeled

BATCH = 256
TOP = 5


@dataclass(frozen=True, kw_only=True)
class Result:
    """Shares in 0-1; `ece` is the expected calibration error.

    `dropped`: images that could not be decoded, by reason; they are not in the rest.
    """

    num_images: int
    top1: float
    top5: float | None
    ece: float
    agreement: float | None
    per_class: dict[str, float | None]
    dropped: dict[str, int]


@torch.no_grad()
def predict(net: Net, stored_NRR3: Tensor, size: int) -> Tensor:
    """argmax of the logits of the canonical views of stored images [N, R, R, 3] -> [N] int64."""
    device = str(stored_NRR3.device)
    predicted = []
    for start in range(0, len(stored_NRR3), BATCH):
        stored = stored_NRR3[start : start + BATCH]
        pixels = augment.crop_views(stored, augment.center_view(len(stored), size), size)
        with devices.autocast(device):
            predicted.append(net(pixels)[2].argmax(1))
    return torch.cat(predicted)


def agreement(net: Net, stored_NRR3: Tensor, teacher_N: Tensor, size: int) -> float:
    """Return the share of stored images [N, R, R, 3] that `net` puts in the teacher's class [N].

    The share is in 0-1; each image is seen as its canonical view.
    """
    was_training = net.module.training
    net.eval()
    share = (predict(net, stored_NRR3, size) == teacher_N).float().mean().item()
    net.train(was_training)
    return share


def evaluate_net(
    student: Teacher, labeled: str, *, teacher: Teacher | None = None, device: str = "cpu"
) -> Result:
    """The Result of one student, as `evaluate_nets` gives it."""
    return evaluate_nets([student], labeled, teacher=teacher, device=device)[0]


@torch.no_grad()
def evaluate_nets(
    students: Sequence[Teacher],
    labeled: str,
    *,
    teacher: Teacher | None = None,
    device: str = "cpu",
    batch_size: int = BATCH,
) -> list[Result]:
    """Accuracy of each student on a labeled set, and its agreement with `teacher` if given.

    The results are in the order of `students`, then the teacher's own. One pass over `labeled`,
    a spec that `open_labeled` reads. Each net sees its own canonical view; an image is decoded once
    for all nets of one geometry, and counts for all nets or for none. Memory: two batches.

    Raises SourceError where labels are missing or out of range; ValueError for nets of different
    classes, for logits that are not finite, and when no image could be decoded.

    Example: `evaluate_nets([load_teacher("runs/students/small")], "/data/val")[0].top1`
    """
    nets = [*students, *([] if teacher is None else [teacher])]
    classes = nets[0].card.classes
    for net in nets:
        if net.card.classes != classes:
            raise ValueError(
                f"{nets[0].directory} and {net.directory} have different classes: evaluate them "
                "in separate calls"
            )
    geometries = list(dict.fromkeys(net.geometry for net in nets))
    dropped: Counter[str] = Counter()
    labels: list[int] = []
    predictions: list[list[tuple[Tensor, Tensor]]] = [[] for _ in nets]
    with Progress("evaluate") as progress:
        for batch in _batches(open_labeled(labeled, classes), geometries, batch_size):
            dropped.update(views for _, views in batch if isinstance(views, str))
            decoded = [(label, views) for label, views in batch if not isinstance(views, str)]
            labels += [label for label, _ in decoded]
            for number, geometry in enumerate(geometries if decoded else []):
                pixels_BHW3 = np.stack([views[number] for _, views in decoded])
                pixels_B3HW = to_unit(torch.from_numpy(pixels_BHW3).to(device))
                for net, batches in zip(nets, predictions, strict=True):
                    if net.geometry == geometry:
                        batches.append(_top_classes(net, pixels_B3HW, device))
            progress.add(len(batch))
    if not labels:
        why = f"no image can be decoded ({dict(dropped)})" if dropped else "it is empty"
        raise ValueError(f"{labeled}: {why}")
    tops = [torch.cat([top for top, _ in batches]) for batches in predictions]
    confidences = [torch.cat([conf for _, conf in batches]).numpy() for batches in predictions]
    labels_N = torch.tensor(labels)
    results = [
        _result(top, confidence_N, labels_N, classes, dropped)
        for top, confidence_N in zip(tops, confidences, strict=True)
    ]
    if teacher is None:
        return results
    shares = [(top[:, 0] == tops[-1][:, 0]).double().mean().item() for top in tops[:-1]]
    of_students = [
        replace(result, agreement=share) for result, share in zip(results[:-1], shares, strict=True)
    ]
    return [*of_students, results[-1]]


def _batches(
    samples: Iterator[tuple[Sample, int]], geometries: Sequence[Geometry], size: int
) -> Iterator[list[tuple[int, list[Pixels] | str]]]:
    """(label, a view per geometry or why there is none), up to `size` at a time.

    A batch is decoded by threads while the nets are at work on the one before.
    """
    with ThreadPoolExecutor(devices.cores()) as pool:
        ahead: list[tuple[int, Future[list[Pixels] | str]]] = []
        while True:
            before, ahead = ahead, []
            for sample, label in islice(samples, size):
                ahead.append((label, pool.submit(_load, sample.data, geometries)))
            if before:
                yield [(label, views.result()) for label, views in before]
            if not ahead:
                return


def _load(data: bytes, geometries: Sequence[Geometry]) -> list[Pixels] | str:
    try:
        return [load_view(data, geometry)[0] for geometry in geometries]
    except BadImage as error:
        return error.reason


def _top_classes(net: Teacher, pixels_B3HW: Tensor, device: str) -> tuple[Tensor, Tensor]:
    """The likeliest classes [B, <= TOP] and the first one's probability [B], both on the CPU."""
    with devices.autocast(device):
        _, _, logits_BC = net(pixels_B3HW)
    top = logits_BC.topk(min(TOP, logits_BC.shape[1]), dim=1).indices.cpu()
    confidence_B = logits_BC.softmax(1).amax(1).cpu()
    if not confidence_B.isfinite().all():
        raise ValueError(
            f"{net.directory} gives logits that are not finite: its training diverged, train it "
            "again with a lower --lr"
        )
    return top, confidence_B.clamp(max=1)


def _result(
    top: Tensor,
    confidence_N: npt.NDArray[np.float32],
    labels_N: Tensor,
    classes: tuple[str, ...],
    dropped: Counter[str],
) -> Result:
    """The Result, without agreement, of the likeliest classes [N, <= TOP] and confidences [N]."""
    hits = top == labels_N[:, None]
    return Result(
        num_images=len(labels_N),
        top1=hits[:, 0].float().mean().item(),
        top5=hits.any(1).float().mean().item() if len(classes) > TOP else None,
        ece=expected_calibration_error(confidence_N, hits[:, 0].numpy()),
        agreement=None,
        per_class=dict(_per_class(hits[:, 0].numpy(), labels_N.numpy(), classes)),
        dropped=dict(dropped),
    )


def _per_class(
    hits: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.int64],
    classes: tuple[str, ...],
) -> Iterator[tuple[str, float | None]]:
    """(name, accuracy) per class, None without images; names that repeat get their number."""
    counts: Counter[str] = Counter(classes)
    for number, name in enumerate(classes):
        in_class = labels == number
        share = float(hits[in_class].mean()) if in_class.any() else None
        yield (name if counts[name] == 1 else f"{name} ({number})"), share
