"""DFND: distillation with a learned matrix of the teacher's label errors.

Paper: Learning Student Networks in the Wild (Chen et al., CVPR 2021); code and table read: SOURCE.
L = T^2 KL(softmax(t / T) || softmax(s / T)) + noise NLL(log(softmax(s) Q), y), y = argmax t; Q has
the teacher's accuracy on its diagonal and learns the rest of each row.
Command: make select METHOD=dfnd ...; winnow distill --method dfnd --preset cifar10_r34_r18
Cost: kd's; Q takes 16 C^2 bytes with its optimizer (16 MB at 1,000 classes, 7.6 GB at 21,841).
Expected (the paper's): R34 -> R18, 600,000 web images, CIFAR-10 94.02, CIFAR-100 76.35.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.losses.kd import kd
from distill.method import Batch, Method, weighted_mean
from distill.methods._noisy_labels import NoisyLabels, recorded_accuracy
from distill.presets import HAM10000, PLAIN_SGD, Preset, on_pairs
from indexes.models.net import Net
from indexes.models.teacher import Teacher


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of dfnd."""

    temperature: float = 4.0
    """Temperature T of both softmaxes. SOURCE"""
    noise: float = 1.0
    """Weight of the term with Q. SOURCE"""
    accuracy: float | None = None
    """Diagonal of Q: the teacher's accuracy in 0-1. None: the accuracy on its card, else 0.95.
    SOURCE"""

    def __post_init__(self) -> None:
        if self.accuracy is not None and not 0 < self.accuracy < 1:
            raise ValueError(f"accuracy must be between 0 and 1, not {self.accuracy}")


# A budget of 40,000 batches of 512: 33 epochs of 600,000 images in batches of 256. SOURCE
RELEASE = {
    "batch_size": 256,
    "steps": 77_352,
    "lr": 0.1,
    "drop_at": (13 / 33, 27 / 33),
    **PLAIN_SGD,
    "crop": "zeros",
}
NOTES = (
    "The loss of the release and, for CIFAR, its training: SOURCE.",
    "The release fixes the accuracy at 0.9523 on CIFAR-10 and 0.7774 on CIFAR-100; here it comes "
    "from the teacher's card.",
    "ResNets begin with He's initial weights; the release uses torch's.",
    "The release reports the best epoch on the test set; here the last weights count.",
)
FAITHFUL = Preset(config=Config(), recipe=RELEASE, notes=NOTES)
FIGURES = {
    "cifar10_r34_r18": (94.02, "the paper, 600,000 web images: SOURCE"),
    "cifar100_r34_r18": (76.35, "the paper, 600,000 web images: SOURCE"),
}
PRESETS = {**on_pairs(FAITHFUL, FIGURES, {HAM10000: {"crop": "resized"}}), "faithful": FAITHFUL}


class DFND(Method):
    """See the top of the file."""

    config: Config

    def __init__(self, student: Net, teacher: Teacher, config: Config) -> None:
        super().__init__(student, teacher, config)
        accuracy = config.accuracy or recorded_accuracy(teacher.card)
        self.noise = NoisyLabels(student.num_classes, accuracy)

    def own_optimizer(self) -> torch.optim.Optimizer:
        """Adam for Q."""
        return self.noise.optimizer()

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The scalar terms `kd` and `noise` of a batch. SOURCE."""
        config = self.config
        _, _, logits = self.student(batch.pixels)
        matched = kd(logits, batch.logits, config.temperature)
        noisy = self.noise(logits, batch.logits)
        return {
            "kd": weighted_mean(matched, batch.weights),
            "noise": config.noise * weighted_mean(noisy, batch.weights),
        }
