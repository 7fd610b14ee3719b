"""Ours: the teacher's map and its logits at once, by orthogonalized updates (Muon).

L = align mean (P(f_S) - f_T)^2 / mean f_T^2 + kd T^2 KL(softmax(t / T) || softmax(s / T)); the
student ends in the teacher's own classifier (SimKD, KD3), so both terms pull at the same features,
and the map is measured in its own size, so that one weight does for any teacher. The optimizer is
Muon (distill/training/muon.py), which is worth more than any term; `--optimizer muon` gives it to
the other methods too. OURS; what each part gives is in docs/results.md.
Command: winnow distill --method winnow
Cost: that of hidfd, and of Muon fifteen products with each weight matrix a step; the projector,
which the student keeps. `oversample=2`: two forwards of the student more.
Expected (docs/results.md): R18 -> ResNet-8, 1,000 steps on web images for CIFAR-10, 82.7
(hidfd 80.0, by Muon 82.8; kd 67.2).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from distill.losses._maps import same_side
from distill.losses.feature_mse import feature_mse
from distill.losses.kd import kd
from distill.method import Batch, Preset, at_least, weighted_mean
from distill.methods._class_threshold import largest
from distill.methods._simkd import ReusedClassifier
from indexes.models.net import Net
from indexes.models.teacher import Teacher

MIN_SIZE = 1e-12  # of a teacher whose map is zero everywhere


@dataclass(frozen=True, kw_only=True)
class Config:
    """The knobs of winnow."""

    temperature: float = 4.0
    """T of both softmaxes."""
    kd: float = 2.0
    """Weight of the divergence of the softmaxes."""
    align: float = 100.0
    """Weight of the alignment."""
    oversample: int = 1
    """Batches read for each one trained on: the images of the largest KL; 1 trains on all."""
    factor: int = 2
    """How much narrower than the teacher's features the projector is inside."""
    depthwise: bool = False
    """Whether its 3x3 looks at each channel by itself: with factor=1 a third of the weights."""

    def __post_init__(self) -> None:
        at_least(self, oversample=1, factor=1)


PRESETS = {
    "cifar10_r34_r18": Preset(config=Config(), recipe={"batch_size": 256, "epochs": 240.0}),
    "cifar10_wrn": Preset(config=Config(), recipe={"batch_size": 256, "epochs": 240.0}),
    "imagenet_r50_r18": Preset(config=Config(), recipe={"batch_size": 256, "epochs": 100.0}),
}


class Winnow(ReusedClassifier):
    """See the file's head."""

    config: Config
    optimizer = "muon"

    def __init__(self, student: Net, teacher: Teacher, config: Config) -> None:
        super().__init__(student, teacher, config, depthwise=config.depthwise)

    @classmethod
    def oversample(cls, config: Config) -> int:
        return config.oversample

    def select_batch(self, batch: Batch, progress: float) -> Batch:
        """The images that the student has learned least."""
        if self.config.oversample == 1:
            return batch
        unlearned = kd(self.eval_logits(batch.pixels), batch.logits, 1.0)
        num = len(unlearned) // self.config.oversample
        return batch.rows(largest(unlearned, batch.weights, num))

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """{"align", "kd"}, each with its weight in it."""
        config = self.config
        student_map, _, logits = self.student(batch.pixels)
        student_map, target = same_side(student_map, batch.teacher_map)
        aligned = feature_mse(student_map, target, normalized=False)
        size = target.float().flatten(1).square().mean(1)
        matched = kd(logits, batch.logits, config.temperature)
        return {
            "align": config.align
            * weighted_mean(aligned, batch.weights)
            / weighted_mean(size, batch.weights).clamp_min(MIN_SIZE),
            "kd": config.kd * weighted_mean(matched, batch.weights),
        }
