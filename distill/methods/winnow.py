"""Our own method: match the teacher's map and its logits together, with Muon as the optimizer.

Paper: none; OURS.
L = align mean (P(f_S) - f_T)^2 / mean f_T^2 + kd T^2 KL(softmax(t / T) || softmax(s / T)).
With `deploy=reused`, the student ends in the projector P and the teacher's classifier (SimKD, KD3),
so both terms act on the same features. With `deploy=plain`, the student is saved as it is: P serves
the training only, s are the logits of the student's own classifier, and the weight `align` fades to
zero, so that the logits alone finish the training. With `stage`, the maps of the stage before are
compared through a second projector in the first part of the training.
The distance of the maps is relative to the size of the teacher's map, so one weight suits any
teacher. Muon (distill/training/muon.py) contributes more than any term; `--optimizer muon` selects
it for the other methods too. OURS; docs/results.md has the gain of each part.
Command: winnow distill --method winnow
Cost: that of hidfd with its projector, and fifteen matrix products per weight and step for Muon.
`oversample=2` adds two forwards of the student.
Expected (docs/results.md): R18 -> ResNet-8, 1,000 steps on web images for CIFAR-10, 82.8
(hidfd 80.4, by Muon 83.0; kd 65.5); deploy=plain 79.7 (kd by Muon 77.2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from distill.feature_maps import probe_features
from distill.losses._maps import same_side
from distill.losses.feature_mse import feature_mse
from distill.losses.kd import kd, standardized_kd
from distill.method import Batch, Method, at_least, weighted_mean
from distill.methods._class_threshold import largest
from distill.methods._simkd import mean_square, projector_shape, reuse_classifier
from distill.presets import IMAGENET, SMALL_RECIPE, Preset, on_pairs
from distill.recipe import Needs
from indexes.models.net import Net
from indexes.models.stage_map import StageMap, stage_name
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
    """Weight of the distance between the maps; with deploy=plain, the weight at the start."""
    align_frac: float = 1.0
    """With deploy=plain: share of the training over which this weight falls linearly to zero, in
    0-1. A lower one is faster. With deploy=reused, the weight stays."""
    stage: float = 0.0
    """Weight of the distance between the maps of the stage before the last, which a second
    projector compares; nothing of it is saved. 0 leaves it out."""
    stage_frac: float = 0.6
    """Share of the training in which these maps are compared, in 0-1. The teacher's maps are read
    to the end."""
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
    "For ImageNet, the length is that of SimKD's release, and so is the weight decay of what Muon "
    "does not train: SOURCE.",
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
        stage = Stage(student, teacher) if config.stage > 0 else None
        if config.deploy == "reused":
            student = reuse_classifier(student, teacher, factor=factor, depthwise=depthwise)
            super().__init__(student, teacher, config)
        else:
            super().__init__(student, teacher, config)
            shape = projector_shape(student, teacher, factor=factor, depthwise=depthwise)
            self.projector = Projector(**shape)
        self.stage = stage

    @classmethod
    def needs(cls, config: Config) -> Needs:
        """The teacher's map, with the one of the stage before if it is compared."""
        return "maps" if config.stage > 0 else "map"

    @classmethod
    def oversample(cls, config: Config) -> int:
        """The setting `oversample`."""
        return config.oversample

    @classmethod
    def smaller(cls, config: Config) -> dict[str, Config]:
        """The student as it is, and a depthwise projector."""
        return {
            "deploy=plain": replace(config, deploy="plain"),
            "'factor=1 depthwise=true'": replace(config, factor=1, depthwise=True),
        }

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
        if config.deploy == "reused":
            distance = relative_distance(student_map, batch.teacher_map, weights)
            terms["align"] = config.align * distance
        elif progress < config.align_frac:
            distance = relative_distance(self.projector(student_map), batch.teacher_map, weights)
            terms["align"] = config.align * (1 - progress / config.align_frac) * distance
        if self.stage is None:
            return terms
        if progress < config.stage_frac:
            assert batch.stage is not None
            projected = self.stage.projector(self.stage.student.take())
            terms["stage"] = config.stage * relative_distance(projected, batch.stage, weights)
        else:
            self.stage.student.stop()
        return terms


class Stage(nn.Module):
    """The maps of the stage before the last, in student and teacher."""

    def __init__(self, student: Net, teacher: Teacher) -> None:
        """Raises NetError if one of the two has no such stage."""
        super().__init__()
        size = teacher.card.input_size
        maps = []
        for net in (student, teacher.net):
            stage = StageMap(net, stage_name(net, size))
            probe_features(net, size)
            maps.append((stage, stage.take()))
        (self.student, first), (teachers, second) = maps
        teachers.stop()  # the targets bring the teacher's maps, and its net is shared
        self.projector = Projector(
            first.shape[1],
            second.shape[1],
            side=second.shape[2:],
            factor=2,
            depthwise=False,
            signed=bool((second < 0).any()),
        )


def relative_distance(student_BDHW: Tensor, teacher_BDHW: Tensor, weights_B: Tensor) -> Tensor:
    """Return mean (f_S - f_T)^2 / mean f_T^2 of maps [B, D, h, w] with weights [B], a scalar. OURS.

    The larger map is average-pooled to the smaller.
    """
    student, teacher = same_side(student_BDHW, teacher_BDHW)
    values_B = feature_mse(student, teacher, normalized=False)
    return weighted_mean(values_B, weights_B) / mean_square(teacher, weights_B)
