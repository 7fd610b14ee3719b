"""Probes: small nets trained on thumbnails of the most confident images show what is left to learn.

What the teacher is sure of and a small net cannot tell from the most confident images is what is
left for a student to learn (OURS; docs/LOG.md). The thumbs that are kept beside every embedding are
enough for that: no image is read again. One probe alone ranks images half by its own chance, so
several are averaged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from indexes import devices
from indexes.embeddings import Block
from indexes.images import thumbnails
from indexes.models.net import Net, build_net
from indexes.progress import Progress
from pipeline.pool import Pool, chunks
from pipeline.selection.top_n import select_top_n
from pipeline.soft_targets import TEMPERATURE, SoftTargets

Array = npt.NDArray[Any]
PROBES = 4
MOST_ROWS = 1 << 16
EPOCHS, LEAST_STEPS = 6, 100
BATCH = 128
ROWS = 1024  # looked at in one forward
LEARNING_RATE = 0.1
NET, CENTER, SPREAD = "resnet8", [128 / 255] * 3, [64 / 255] * 3
CONSTANTS = [NET, PROBES, MOST_ROWS, EPOCHS, LEAST_STEPS, BATCH, LEARNING_RATE]


def proxy_kl(pool: Pool, device: str = "cpu") -> Iterator[tuple[Block, Array]]:
    """For each block the KL divergence of the teacher's softened answers from those of a probe
    that was trained on the most confident tenth of the candidates, even over the classes, mean over
    PROBES of them: float32 [n].

    Nothing where that tenth does not make a batch.
    """
    rows = most_confident(pool)
    if len(rows) < BATCH:
        return
    lesson = Lesson.of(pool, rows)
    with Progress("probes learn", PROBES * lesson.steps * BATCH, "thumbs") as progress:
        probes = [_trained(lesson, seed, device, progress) for seed in range(PROBES)]
    with torch.inference_mode(), Progress("probes look", len(pool), "thumbs") as progress:
        for block in pool.blocks:
            found, stored = np.empty(len(block), np.float32), SoftTargets.of(block)
            for some in chunks(len(block), ROWS):
                wanted = torch.from_numpy(stored.rows(some).answers(len(pool.classes))).to(device)
                pixels = _pixels(block.matrix("thumb")[some], device)
                each = [_divergence(probe, pixels, wanted) for probe in probes]
                found[some] = torch.stack(each).mean(0).cpu().numpy()
                progress.add(len(wanted))
            yield block, found


@dataclass(frozen=True)
class Lesson:
    """What probes learn from: thumbs [n, WIDTH] and what the teacher said of each."""

    thumbs: Array
    stored: SoftTargets
    num_classes: int

    @classmethod
    def of(cls, pool: Pool, rows: Array) -> Lesson:
        """That of ascending pool rows, in memory."""
        taken = list(pool.by_block(rows))
        return cls(
            np.concatenate([block.matrix("thumb")[local] for block, local in taken]),
            SoftTargets.joined([SoftTargets.of(block).rows(local) for block, local in taken]),
            len(pool.classes),
        )

    def __len__(self) -> int:
        return len(self.thumbs)

    @property
    def steps(self) -> int:
        """EPOCHS in batches, but at least LEAST_STEPS."""
        return max(LEAST_STEPS, EPOCHS * len(self) // BATCH)


def _divergence(probe: Net, pixels: Tensor, wanted: Tensor) -> Tensor:
    """KL of the wanted softened answers [n, C] from the probe's, [n]."""
    with devices.autocast(str(wanted.device)):
        _, _, logits = probe(pixels)
    told = F.log_softmax(logits / TEMPERATURE, 1)
    return F.kl_div(told, wanted, reduction="none").sum(1)


def _trained(lesson: Lesson, seed: int, device: str, progress: Progress) -> Net:
    """A probe that has learned its lesson."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = build_net(NET, num_classes=lesson.num_classes, mean=CENTER, std=SPREAD)
    probe.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        probe.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, lesson.steps)
    draw = np.random.default_rng(seed)
    for _ in range(lesson.steps):
        chosen = draw.integers(0, len(lesson), BATCH)
        pixels = _pixels(lesson.thumbs[chosen], device)
        mirrored = torch.from_numpy(draw.random(BATCH) < 0.5).to(device)
        pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
        wanted = torch.from_numpy(lesson.stored.rows(chosen).answers(lesson.num_classes))
        loss = _divergence(probe, pixels, wanted.to(device)).mean() * TEMPERATURE**2
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        progress.add(BATCH)
    return probe.eval()


def most_confident(pool: Pool) -> Array:
    """The rows that probes learn from: a tenth of the candidates, at most MOST_ROWS, ascending; the
    most_confident of each class.
    """
    num = int(np.clip(int(pool.class_counts().sum()) // 10, 1, MOST_ROWS))
    with tempfile.TemporaryDirectory(dir=pool.scratch) as scratch:
        out = Path(scratch) / "rows.npy"
        select_top_n(pool, num, "quota", 0.0, out, by="log_odds")
        rows: Array = np.load(out, allow_pickle=False)
    return rows


def _pixels(rows: Array, device: str) -> Tensor:
    """Thumbs [n, WIDTH] as YCbCr, float32 [n, 3, S, S] in [0, 1]."""
    luma, chroma = (torch.from_numpy(np.array(plane)) for plane in thumbnails.planes(rows))
    chroma = F.interpolate(chroma.to(device).float(), scale_factor=2.0)
    whole = torch.cat([luma[:, None].to(device).float(), chroma], 1)
    return (whole / 255).contiguous(memory_format=torch.channels_last)
