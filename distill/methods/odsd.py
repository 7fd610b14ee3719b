"""In the spirit of ODSD (arXiv 2307.16601): KD, a low-noise representation, relations twice.

L = L_kd + low_noise L_ln + self_relation L_self + teacher_relation L_teacher. That there are a
low-noise term and relations on the data's and on the teacher's level is SOURCE; the shape of each
is REC .35 to .6 and the weights are unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.losses.kd import kd
from distill.losses.ntxent import ntxent
from distill.losses.relation_kl import relation_kl
from distill.losses.subspace import classifier_subspace, subspace
from distill.method import Batch, Method, weighted_mean
from indexes.nets import Net
from indexes.teachers import Teacher


@dataclass(frozen=True, kw_only=True)
class Config:
    """The knobs of odsd."""

    temperature: float = 4.0
    """T of L_kd. REC .6"""
    low_noise: float = 1.0
    """Weight of L_ln; feature terms carry on shifted data. REC .6"""
    self_relation: float = 0.1
    """Weight of L_self; relations are small additions. REC .6"""
    teacher_relation: float = 0.1
    """Weight of L_teacher. REC .6"""
    tau: float = 0.1
    """Temperature of both relations. REC .6"""
    rank: int | None = None
    """Directions of the classifier that L_ln keeps; None: all that the softmax depends on,
    min(C - 1, D). OURS"""
    skip_same_class: bool = True
    """Images of which the teacher thinks alike are no negatives of each other in L_self: with few
    classes most pairs are. OURS"""
    ramp_frac: float = 0.05
    """Share of the training over which the three weights grow from zero. REC .6"""


class ODSD(Method):
    """Two views of each image; see the file's head for the loss."""

    views = 2
    needs = "features"
    config: Config

    def __init__(self, student: Net, teacher: Teacher, config: Config) -> None:
        super().__init__(student, teacher, config)
        weight_CD, _ = teacher.head
        num_classes, width = weight_CD.shape
        rank = min(num_classes - 1, width) if config.rank is None else config.rank
        self.to_teacher = nn.Linear(student.num_features, width)
        self.basis_DR: Tensor
        self.register_buffer("basis_DR", classifier_subspace(weight_CD.float(), rank))

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """{"kd", "low_noise", "self", "teacher"}, each with its weight and ramp in it."""
        config, weights = self.config, batch.weights
        _, features, logits = self.student(batch.pixels)
        half = len(features) // 2
        answers = kd(logits, batch.logits, config.temperature)
        aligned = subspace(self.to_teacher(features), batch.teacher_features, self.basis_DR)
        found = ntxent(
            features[:half],
            features[half:],
            tau=config.tau,
            weights_B=weights[:half],
            classes_B=batch.logits[:half].argmax(1) if config.skip_same_class else None,
        )
        # Within one view: an image's own other view would dominate the teacher's softmax.
        related = torch.cat(
            [
                relation_kl(
                    features[view],
                    batch.teacher_features[view],
                    tau=config.tau,
                    weights_B=weights[view],
                )
                for view in (slice(half), slice(half, None))
            ]
        )
        ramp = min(1.0, progress / config.ramp_frac) if config.ramp_frac > 0 else 1.0
        return {
            "kd": weighted_mean(answers, weights),
            "low_noise": ramp * config.low_noise * weighted_mean(aligned, weights),
            "self": ramp * config.self_relation * weighted_mean(found, weights[:half]),
            "teacher": ramp * config.teacher_relation * weighted_mean(related, weights),
        }
