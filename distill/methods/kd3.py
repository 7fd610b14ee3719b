"""KD3: what the student trains on is chosen anew as it learns, and it learns the teacher's map.

Paper: Knowledge Distillation between Different Distributions (arXiv 2307.11469, ICCV 2023); its
code was read (SOURCE), what differs here is OURS and said so. With z = alpha t + (1 - alpha) s an
image is kept iff max softmax(z) > tau b / (2 - b), b the share of its class in the largest one.
L = align mean w (P(f_S) - f_T)^2 + contrast NT-Xent(x, MixDistribution(x)), w = sigmoid(||t - s||).
The release chooses from the whole pool in each epoch; here, on a stream, each step reads
`oversample` batches and trains on what passes of them, and class counts are running means (OURS).
The deployed student is encoder, projector and the teacher's classifier.
Command: winnow distill --method kd3 --preset cifar10_r34_r18
Cost: oversample forwards of the student more than kd, the projector, and a second view of each
image where `contrast` is above zero.
Expected (the paper's, through a secondary note): R34 -> R18, CIFAR-10 95.21, CIFAR-100 78.44.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distill.losses._maps import same_side
from distill.losses.ntxent import ntxent
from distill.losses.weighted_feature_mse import alignment_weight, weighted_feature_mse
from distill.method import Batch, Preset, at_least, weighted_mean
from distill.methods._class_threshold import ClassThreshold, first_passing, teacher_share
from distill.methods._mix_distribution import mix_distribution
from distill.methods._simkd import ReusedClassifier
from indexes import devices
from indexes.models.net import Net
from indexes.models.teacher import Teacher

EMBEDDING, TAU = 128, 0.3  # width and temperature of the contrast. SOURCE
MIXING = 0.1  # lam ~ Beta(MIXING, MIXING). SOURCE


@dataclass(frozen=True, kw_only=True)
class Config:
    """The knobs of kd3."""

    tau: float = 0.95
    """Threshold of the largest class; 0 keeps every image. SOURCE"""
    tau_floor: float = 1.5
    """No threshold below this many times 1 / C. OURS"""
    schedule: Literal["smooth", "faithful"] = "smooth"
    """Of alpha, the teacher's share in z. faithful: 1 - exp(-5 ((e + 1) / 160 - 1)^2) in epochs e
    of 240, cut to 0 at 120 from .27. SOURCE. smooth: falls to 0 at `teacher_frac`. OURS"""
    teacher_frac: float = 2 / 3
    """Share of the training in which `smooth` asks the teacher at all. OURS"""
    oversample: int = 2
    """Batches read for each one trained on. OURS"""
    memory: int = 100
    """Steps over which class counts are averaged. OURS"""
    least_kept: float = 0.02
    """The training stops where over `memory` steps a smaller share of the images passes. OURS"""
    align: float = 100.0
    """Weight of the alignment: the release's 1 wants its 240 epochs. OURS"""
    weighted: bool = True
    """Whether images weigh by w. SOURCE"""
    contrast: float = 0.1
    """Weight of NT-Xent between an image and its MixDistribution; the release's is a thousandth of
    its alignment, as here. SOURCE"""
    factor: int = 2
    """How much narrower than the teacher's features the projector is inside. SOURCE"""

    def __post_init__(self) -> None:
        at_least(self, tau=0, oversample=1, memory=1, factor=1)


PUBLISHED = {"batch_size": 1024, "epochs": 240.0, "lr": 0.05, "drop_at": (0.625, 0.75, 0.875)}
PRESETS = {
    "cifar10_r34_r18": Preset(config=Config(), recipe=PUBLISHED),
    "cifar10_wrn": Preset(config=Config(), recipe=PUBLISHED),
    "imagenet_r50_r18": Preset(config=Config(), recipe={"batch_size": 256, "epochs": 100.0}),
    "faithful": Preset(
        config=Config(schedule="faithful", tau_floor=0.0, align=1.0, contrast=0.001),
        recipe=PUBLISHED,
    ),
}


class KD3(ReusedClassifier):
    """See the file's head."""

    config: Config

    def __init__(self, student: Net, teacher: Teacher, config: Config) -> None:
        super().__init__(student, teacher, config)
        self.embed = nn.Linear(self.student.num_features, EMBEDDING)
        self.class_threshold = ClassThreshold(
            self.student.num_classes, tau=config.tau, floor=config.tau_floor, memory=config.memory
        )

    @classmethod
    def oversample(cls, config: Config) -> int:
        return config.oversample

    def select_batch(self, batch: Batch, progress: float) -> Batch:
        """As many images as train in a step: those that pass first, then others with weight 0."""
        config = self.config
        alpha = teacher_share(progress, config.schedule, config.teacher_frac)
        mixed = alpha * batch.logits + (1 - alpha) * self.eval_logits(batch.pixels)
        passes, observed = self.class_threshold(mixed)
        self.observed.update(observed)
        rows = first_passing(passes, len(passes) // config.oversample)
        return batch.rows(rows).reweighted(passes[rows])

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """{"align"} and, where it weighs anything, {"contrast"}."""
        config = self.config
        student_map, features, logits = self.student(batch.pixels)
        student_map, target = same_side(student_map, batch.teacher_map)
        weight = alignment_weight(logits, batch.logits)
        if not config.weighted:
            weight = torch.ones_like(weight)
        align = weighted_feature_mse(student_map, target, weight)
        terms = {"align": config.align * weighted_mean(align, batch.weights)}
        if config.contrast > 0:
            contrast = self._contrast(batch, features)
            terms["contrast"] = config.contrast * weighted_mean(contrast, batch.weights)
        return terms

    def _contrast(self, batch: Batch, features_BD: Tensor) -> Tensor:
        """The values [B] of each image and its MixDistribution finding each other."""
        num, device = len(features_BD), features_BD.device
        draw = torch.distributions.Beta(MIXING, MIXING)
        share = devices.send(draw.sample((num,)).numpy(), device)
        partner = devices.send(torch.randperm(num).numpy(), device)
        # An image that weighs nothing gives nothing of itself.
        partner = torch.where(batch.weights[partner] > 0, partner, torch.arange(num, device=device))
        _, other_BD, _ = self.student(mix_distribution(batch.pixels, partner, share))
        return ntxent(
            self.embed(features_BD),
            self.embed(other_BD),
            tau=TAU,
            weights_B=batch.weights,
        )

    def check(self, observed: Mapping[str, Any]) -> None:
        """Stops where hardly anything passes: the student would learn nothing, or one class."""
        self.class_threshold.check(self.config.least_kept)
