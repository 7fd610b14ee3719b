"""Probes: small nets, trained on thumbs of the most confident images, measure how hard images are.

An image is hard if the teacher is confident but a probe, trained on the most confident images,
disagrees with the teacher. Such images still have something to teach a student (OURS; docs/LOG.md).
The thumbs stored with every embedding suffice, so no image is read again. The ranking by a single
probe is half chance, so several probes are averaged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from indexes import devices
from indexes.command.progress import Progress
from indexes.embeddings import Block
from indexes.images import thumbnails
from indexes.images.decode import Pixels
from indexes.models.net import Net, build_net
from pipeline.pool import Pool, chunks
from pipeline.selection.top_n import select_top_n
from pipeline.soft_targets import TEMPERATURE, SoftTargets

PIXEL_MEAN, PIXEL_STD = [128 / 255] * 3, [64 / 255] * 3
FORWARD_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """The settings of the probes and of their training."""

    net: str = "resnet8"
    num_probes: int = 4
    max_rows: int = 1 << 16
    """The most rows that the probes are trained on."""
    epochs: int = 6
    min_steps: int = 100
    batch_size: int = 128
    learning_rate: float = 0.1


CONSTANTS = ProbeConfig()
"""The settings that the column depends on, besides the pool; part of the digest."""


def proxy_kl(
    pool: Pool, device: str = "cpu", config: ProbeConfig = CONSTANTS
) -> Iterator[tuple[Block, npt.NDArray[np.float32]]]:
    """Yield for each block KL(teacher || probe) of the softened targets, float32 [N] (OURS).

    The divergence is the mean over the probes. They are trained on the most confident tenth of the
    candidates, balanced over classes. Nothing is yielded if that tenth is smaller than a batch.

    Example: `pool.fill((block, {"proxy_kl": values}) for block, values in proxy_kl(pool))`
    """
    rows = most_confident(pool, config.max_rows)
    if len(rows) < config.batch_size:
        return
    examples = Examples.gather(pool, rows)
    steps = max(config.min_steps, config.epochs * len(examples) // config.batch_size)
    total = config.num_probes * steps * config.batch_size
    with Progress("train probes", total, "thumbs") as progress:
        probes = [
            _trained(examples, steps, seed, config, device, progress)
            for seed in range(config.num_probes)
        ]
    with torch.inference_mode(), Progress("run probes", len(pool), "thumbs") as progress:
        for block in pool.blocks:
            divergence, targets = np.empty(len(block), np.float32), SoftTargets.of(block)
            for piece in chunks(len(block), FORWARD_ROWS):
                target = torch.from_numpy(targets.rows(piece).probabilities(len(pool.classes))).to(
                    device
                )
                pixels = _pixels(block.matrix("thumb")[piece], device)
                by_probe = [_divergence(probe, pixels, target) for probe in probes]
                divergence[piece] = torch.stack(by_probe).mean(0).cpu().numpy()
                progress.add(len(target))
            yield block, divergence


@dataclass(frozen=True)
class Examples:
    """The training data of the probes: thumbs uint8 [N, WIDTH] and the teacher's soft targets."""

    thumbs: Pixels
    targets: SoftTargets
    num_classes: int

    @classmethod
    def gather(cls, pool: Pool, rows: npt.NDArray[np.int64]) -> Examples:
        """Read the examples of ascending pool rows [N] into memory (OURS)."""
        blocks = list(pool.by_block(rows))
        return cls(
            np.concatenate([block.matrix("thumb")[local] for block, local in blocks]),
            SoftTargets.concatenate([SoftTargets.of(block).rows(local) for block, local in blocks]),
            len(pool.classes),
        )

    def __len__(self) -> int:
        return len(self.thumbs)


def _divergence(probe: Net, pixels: Tensor, target: Tensor) -> Tensor:
    """Return KL(target || probe) of the softened softmax [n, C], float32 [n]."""
    with devices.autocast(str(target.device)):
        _, _, logits = probe(pixels)
    log_p = F.log_softmax(logits / TEMPERATURE, 1)
    return F.kl_div(log_p, target, reduction="none").sum(1)


def _trained(
    examples: Examples,
    steps: int,
    seed: int,
    config: ProbeConfig,
    device: str,
    progress: Progress,
) -> Net:
    """Train a probe and return it in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = build_net(
            config.net, num_classes=examples.num_classes, mean=PIXEL_MEAN, std=PIXEL_STD
        )
    probe.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        probe.parameters(), config.learning_rate, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = np.random.default_rng(seed)
    for _ in range(steps):
        chosen = generator.integers(0, len(examples), config.batch_size)
        pixels = _pixels(examples.thumbs[chosen], device)
        mirrored = torch.from_numpy(generator.random(config.batch_size) < 0.5).to(device)
        pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
        target = torch.from_numpy(examples.targets.rows(chosen).probabilities(examples.num_classes))
        loss = _divergence(probe, pixels, target.to(device)).mean() * TEMPERATURE**2
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        progress.add(config.batch_size)
    return probe.eval()


def most_confident(pool: Pool, max_rows: int = CONSTANTS.max_rows) -> npt.NDArray[np.int64]:
    """Return the ascending rows int64 [N] that probes are trained on (OURS).

    They are a tenth of the candidates, at most `max_rows`, and the most confident of each class.
    """
    num = int(np.clip(int(pool.class_counts().sum()) // 10, 1, max_rows))
    with tempfile.TemporaryDirectory(dir=pool.scratch) as scratch:
        out = Path(scratch) / "rows.npy"
        select_top_n(pool, num, "quota", 0.0, out, by="log_odds")
        rows: npt.NDArray[np.int64] = np.load(out, allow_pickle=False)
    return rows


def _pixels(thumbs: Pixels, device: str) -> Tensor:
    """Convert thumbs [n, WIDTH] to YCbCr pixels, float32 [n, 3, S, S] in [0, 1]."""
    luma, chroma = (torch.from_numpy(np.array(plane)) for plane in thumbnails.planes(thumbs))
    chroma = F.interpolate(chroma.to(device).float(), scale_factor=2.0)
    pixels = torch.cat([luma[:, None].to(device).float(), chroma], 1)
    return (pixels / 255).contiguous(memory_format=torch.channels_last)
