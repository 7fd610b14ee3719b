"""Accuracy, calibration and agreement with a teacher, measured on a labeled set."""

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
    """The accuracy of one net on a labeled set. All fractions are in 0-1.

    `num_images`: images that were evaluated. `top5`: None for five classes or fewer. `ece`: the
    expected calibration error. `agreement`: the fraction of images for which the net predicts the
    teacher's class; None without a teacher. `per_class`: top-1 accuracy by class name, None for a
    class without images. `dropped`: the number of images that could not be decoded, by reason; no
    other field includes them.
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
    """Return the predicted classes [N], int64, of stored images [N, R, R, 3].

    The net sees the canonical view of each image, `size` pixels square. R is the side of the stored
    images, in pixels.
    """
    device = str(stored_NRR3.device)
    predicted = []
    for start in range(0, len(stored_NRR3), BATCH):
        stored = stored_NRR3[start : start + BATCH]
        pixels = augment.crop_views(stored, augment.center_view(len(stored), size), size, "pad")
        with devices.autocast(device):
            predicted.append(net(pixels)[2].argmax(1))
    return torch.cat(predicted)


def agreement(net: Net, stored_NRR3: Tensor, teacher_N: Tensor, size: int) -> float:
    """Return how often `net` predicts the teacher's class on stored images [N, R, R, 3].

    The result is a fraction in 0-1. `teacher_N` [N] holds the classes that the teacher predicts.
    The net sees the canonical view of each image, `size` pixels square. It runs in evaluation mode,
    and its mode is restored afterwards.
    """
    was_training = net.module.training
    net.eval()
    fraction = (predict(net, stored_NRR3, size) == teacher_N).float().mean().item()
    net.train(was_training)
    return fraction


def evaluate_net(
    student: Teacher, labeled: str, *, teacher: Teacher | None = None, device: str = "cpu"
) -> Result:
    """Return the Result of one student, as `evaluate_nets` does for several."""
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
    """Measure the accuracy of each student on a labeled set, and its agreement with `teacher`.

    The results are in the order of `students`; the teacher's, if one is given, comes last. The set,
    a spec that `open_labeled` reads, is read once, with at most two batches in memory. Each net
    sees its own canonical view, decoded once for all nets of the same geometry. An image counts for
    all nets or for none.

    Raises SourceError if labels are missing or out of range. Raises ValueError if the nets have
    different classes, if logits are not finite, or if no image can be decoded.

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
        reason = f"no image can be decoded ({dict(dropped)})" if dropped else "the set is empty"
        raise ValueError(f"{labeled}: {reason}")
    tops = [torch.cat([top for top, _ in batches]) for batches in predictions]
    confidences = [torch.cat([conf for _, conf in batches]).numpy() for batches in predictions]
    labels_N = torch.tensor(labels)
    results = [
        _result(top, confidence_N, labels_N, classes, dropped)
        for top, confidence_N in zip(tops, confidences, strict=True)
    ]
    if teacher is None:
        return results
    agreements = [(top[:, 0] == tops[-1][:, 0]).double().mean().item() for top in tops[:-1]]
    pairs = zip(results[:-1], agreements, strict=True)
    return [*(replace(result, agreement=fraction) for result, fraction in pairs), results[-1]]


def _batches(
    samples: Iterator[tuple[Sample, int]], geometries: Sequence[Geometry], size: int
) -> Iterator[list[tuple[int, list[Pixels] | str]]]:
    """Yield lists of up to `size` pairs (label, views), with one view per geometry.

    If an image cannot be decoded, the reason takes the place of its views. Threads decode the next
    batch while the nets process the current one.
    """
    with ThreadPoolExecutor(devices.cores()) as pool:
        pending: list[tuple[int, Future[list[Pixels] | str]]] = []
        while True:
            current, pending = pending, []
            for sample, label in islice(samples, size):
                pending.append((label, pool.submit(_load, sample.data, geometries)))
            if current:
                yield [(label, views.result()) for label, views in current]
            if not pending:
                return


def _load(data: bytes, geometries: Sequence[Geometry]) -> list[Pixels] | str:
    try:
        return [load_view(data, geometry)[0] for geometry in geometries]
    except BadImage as error:
        return error.reason


def _top_classes(net: Teacher, pixels_B3HW: Tensor, device: str) -> tuple[Tensor, Tensor]:
    """Return the most probable classes [B, <= TOP] and the largest probability [B], on the CPU."""
    with devices.autocast(device):
        _, _, logits_BC = net(pixels_B3HW)
    top = logits_BC.topk(min(TOP, logits_BC.shape[1]), dim=1).indices.cpu()
    confidence_B = logits_BC.softmax(1).amax(1).cpu()
    if not confidence_B.isfinite().all():
        raise ValueError(
            f"{net.directory} gives logits that are not finite because its training diverged: "
            "train it again with a lower --lr"
        )
    return top, confidence_B.clamp(max=1)


def _result(
    top: Tensor,
    confidence_N: npt.NDArray[np.float32],
    labels_N: Tensor,
    classes: tuple[str, ...],
    dropped: Counter[str],
) -> Result:
    """Return the Result of the most probable classes [N, <= TOP] and the confidences [N].

    Its agreement is None.
    """
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
    """Yield (name, accuracy) for each class; the accuracy is None if the class has no images.

    If several classes have the same name, their numbers are added to it.
    """
    counts: Counter[str] = Counter(classes)
    for number, name in enumerate(classes):
        in_class = labels == number
        accuracy = float(hits[in_class].mean()) if in_class.any() else None
        yield (name if counts[name] == 1 else f"{name} ({number})"), accuracy
