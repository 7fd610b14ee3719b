"""winnow: match the teacher's map and its logits together, with Muon as the optimizer.

Paper: none; OURS.
L = align mean (P(f_S) - f_T)^2 / mean f_T^2 + kd T^2 KL(softmax(t / T) || softmax(s / T)).
With `deploy=reused`, the student ends in the projector P and the teacher's classifier (SimKD, KD3),
so both terms act on the same features. With `deploy=plain`, the student is saved as it is: P serves
the training only, and s are the logits of the student's own classifier.
The distance of the maps is relative to the size of the teacher's map, so one weight suits any
teacher. Muon (distill/training/muon.py) contributes more than any term; `--optimizer muon` selects
it for the other methods too. OURS; docs/results.md has the gain of each part.
Command: winnow distill --method winnow
Cost: that of hidfd with its projector, and fifteen matrix products per weight and step for Muon.
`oversample=2` adds two forwards of the student.
Expected (docs/results.md): R18 -> ResNet-8, 1,000 steps on web images for CIFAR-10, 82.7
(hidfd 80.0, by Muon 82.8; kd 67.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from distill.losses._maps import same_side
from distill.losses.feature_mse import feature_mse
from distill.losses.kd import kd, standardized_kd
from distill.method import Batch, Method, at_least, weighted_mean
from distill.methods._class_threshold import largest
from distill.methods._simkd import mean_square, projector_shape, reuse_classifier
from distill.presets import IMAGENET, SMALL_RECIPE, Preset, on_pairs
from distill.recipe import Needs
from indexes.models.net import Net
from indexes.models.teacher import Teacher
from indexes.zoo._reused import Projector


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of winnow."""

    deploy: Literal["reused", "plain"] = "reused"
    """reused saves the student with the projector and the teacher's classifier; plain saves the
    student as it is, for devices that cannot pay for a projector."""
    temperature: float = 4.0
    """Temperature T of both softmaxes."""
    kd: float = 2.0
    """Weight of the divergence between the softmaxes."""
    standardize: bool = False
    """Whether the logits of both sides are z-scored before the softmaxes."""
    align: float = 100.0
    """Weight of the distance between the maps."""
    align_frac: float = 1.0
    """Share of the training in which the maps are aligned, in 0-1."""
    oversample: int = 1
    """Batches that are read for each one that trains; the images of the largest KL train. 1 trains
    on all."""
    factor: int = 2
    """The projector's inner width is the teacher's number of features divided by this."""
    depthwise: bool = False
    """Whether the projector's 3x3 convolution is depthwise; with factor=1 it has a third of the
    weights."""

    def __post_init__(self) -> None:
        at_least(self, oversample=1, factor=1)


NOTES = (
    "The weights (align=100, kd=2) were chosen at 1,000 steps: OURS.",
    "The length and the weight decay on ImageNet are those of SimKD's release: SOURCE.",
)
LONG = {"batch_size": 256, "epochs": 120.0, "weight_decay": 1e-4}  # the rate is that of Muon
PRESETS = on_pairs(
    Preset(config=Config(), recipe=SMALL_RECIPE, notes=NOTES), changes={IMAGENET: LONG}
)


class Winnow(Method):
    """See the top of the file."""

    config: Config
    optimizer = "muon"
    max_grad_norm = 5.0

    def __init__(self, student: Net, teacher: Teacher, config: Config) -> None:
        factor, depthwise = config.factor, config.depthwise
        if config.deploy == "reused":
            student = reuse_classifier(student, teacher, factor=factor, depthwise=depthwise)
            super().__init__(student, teacher, config)
        else:
            super().__init__(student, teacher, config)
            shape = projector_shape(student, teacher, factor=factor, depthwise=depthwise)
            self.projector = Projector(**shape)

    @classmethod
    def needs(cls, config: Config) -> Needs:
        """The teacher's map."""
        return "map"

    @classmethod
    def oversample(cls, config: Config) -> int:
        """The setting `oversample`."""
        return config.oversample

    def select_batch(self, batch: Batch, progress: float) -> Batch:
        """The images that the student has learned least."""
        if self.config.oversample == 1:
            return batch
        unlearned = kd(self.eval_logits(batch.pixels), batch.logits, 1.0)
        num = len(unlearned) // self.config.oversample
        return batch.rows(largest(unlearned, batch.weights, num))

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The weighted scalar terms `align` and `kd` of a batch. OURS."""
        config, weights = self.config, batch.weights
        student_map, _, logits = self.student(batch.pixels)
        loss = standardized_kd if config.standardize else kd
        matched = loss(logits, batch.logits, config.temperature)
        terms = {"kd": config.kd * weighted_mean(matched, weights)}
        if progress < config.align_frac:
            projected = student_map if config.deploy == "reused" else self.projector(student_map)
            projected, target = same_side(projected, batch.teacher_map)
            aligned = feature_mse(projected, target, normalized=False)
            relative = weighted_mean(aligned, weights) / mean_square(target, weights)
            terms["align"] = config.align * relative
        return terms
