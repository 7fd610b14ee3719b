"""In the spirit of EIKD (arXiv 2302.08771): classes dropped, features aligned, relations kept.

L = L_classdrop + explicit L_explicit + implicit L_implicit. Class-dropping against label noise,
explicit features, implicit structured relations and a selection for what trains fast are SOURCE
(abstract); the shape of each is REC .35 to .7 and the weights are unknown.
Command: make select METHOD=eikd ...; winnow distill --method eikd
Cost: kd's and a matrix of B^2 relations; with `prefer` two forwards of the student more.
Expected: no figure is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from distill.feature_maps import probe_features
from distill.losses._maps import same_side
from distill.losses.attention import attention
from distill.losses.class_drop import class_drop, default_keep
from distill.losses.feature_mse import feature_mse
from distill.losses.kd import kd
from distill.losses.relation_kl import relation_kl
from distill.losses.rkd import rkd_angle, rkd_distance
from distill.losses.similarity_preserving import similarity_preserving
from distill.method import Batch, Method, Preset, weighted_mean
from distill.methods._class_threshold import largest
from distill.recipe import Needs
from indexes.models.net import Net
from indexes.models.teacher import Teacher


@dataclass(frozen=True, kw_only=True)
class Config:
    """The knobs of eikd."""

    temperature: float = 4.0
    """T of L_classdrop. REC .6"""
    keep: int | None = None
    """Classes of the teacher that an image keeps; None: a third of 10, a tenth of 100, a
    twentieth of 1,000. REC .4"""
    mass: float | None = None
    """Instead of `keep`: the fewest classes that hold this much of the teacher's softmax. REC .4"""
    form: Literal["rest_bin", "both", "truncate"] = "rest_bin"
    """What becomes of the dropped ones: one bin together, or nothing. OURS"""
    explicit: float = 1.0
    """Weight of L_explicit. REC .6"""
    explicit_form: Literal["features", "map", "attention"] = "features"
    """Unit features through a linear map; the map through a 1x1; or where the maps are strong.
    REC .6"""
    implicit: float = 0.1
    """Weight of L_implicit; relations alone mislead on shifted data. REC .6"""
    implicit_form: Literal["relation_kl", "rkd", "similarity"] = "relation_kl"
    """Soft neighborhoods; distances and angles; or Gram matrices. REC .6"""
    tau: float = 0.1
    """Temperature of relation_kl. REC .6"""
    prefer: Literal["none", "divergence", "margin"] = "none"
    """Of two batches read, train on what the student has not learned: large KL(p_T || p_S), or
    small p_S of the teacher's class. REC .35"""


PRESETS = {
    "cifar10_r34_r18": Preset(config=Config(), recipe={"batch_size": 256, "epochs": 240.0}),
    "cifar10_wrn": Preset(config=Config(), recipe={"batch_size": 256, "epochs": 240.0}),
    "imagenet_r50_r18": Preset(config=Config(), recipe={"batch_size": 256, "epochs": 100.0}),
}


class EIKD(Method):
    """See the file's head."""

    config: Config

    def __init__(self, student: Net, teacher: Teacher, config: Config) -> None:
        super().__init__(student, teacher, config)
        width = teacher.net.num_features
        self.to_teacher: nn.Module = nn.Linear(student.num_features, width)
        if config.explicit_form != "features":
            depth = probe_features(student, teacher.card.input_size).map.shape[1]
            self.to_teacher = nn.Conv2d(depth, width, 1)
        unset = config.keep is None and config.mass is None
        self.keep = default_keep(student.num_classes) if unset else config.keep

    @classmethod
    def needs(cls, config: Config) -> Needs:
        return "features" if config.explicit_form == "features" else "map"

    @classmethod
    def oversample(cls, config: Config) -> int:
        return 1 if config.prefer == "none" else 2

    def select_batch(self, batch: Batch, progress: float) -> Batch:
        """The half that the student has learned least."""
        if self.config.prefer == "none":
            return batch
        logits = self.eval_logits(batch.pixels)
        if self.config.prefer == "divergence":
            unlearned = kd(logits, batch.logits, 1.0)
        else:
            classes = batch.logits.argmax(1, keepdim=True)
            unlearned = 1 - logits.float().softmax(1).gather(1, classes).squeeze(1)
        return batch.rows(largest(unlearned, batch.weights, len(unlearned) // 2))

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """{"class_drop", "explicit", "implicit"}, each with its weight in it."""
        config, weights = self.config, batch.weights
        student_map, features, logits = self.student(batch.pixels)
        dropped = class_drop(
            logits,
            batch.logits,
            temperature=config.temperature,
            keep=self.keep,
            mass=config.mass,
            form=config.form,
        )
        return {
            "class_drop": weighted_mean(dropped, weights),
            "explicit": config.explicit
            * weighted_mean(self._explicit(student_map, features, batch), weights),
            "implicit": config.implicit * weighted_mean(self._implicit(features, batch), weights),
        }

    def _explicit(self, map_BDHW: Tensor, features_BD: Tensor, batch: Batch) -> Tensor:
        if self.config.explicit_form == "features":
            mapped = self.to_teacher(features_BD)
            return feature_mse(mapped, batch.teacher_features, normalized=True)
        if self.config.explicit_form == "attention":
            return attention(map_BDHW, batch.teacher_map)
        mapped, target = same_side(self.to_teacher(map_BDHW), batch.teacher_map)
        return feature_mse(F.relu(mapped), target, normalized=True)

    def _implicit(self, features_BD: Tensor, batch: Batch) -> Tensor:
        pair = features_BD, batch.teacher_features
        if self.config.implicit_form == "relation_kl":
            return relation_kl(*pair, tau=self.config.tau, weights_B=batch.weights)
        if self.config.implicit_form == "similarity":
            return similarity_preserving(*pair, weights_B=batch.weights)
        distance = rkd_distance(*pair, weights_B=batch.weights)
        return distance + 2 * rkd_angle(*pair, weights_B=batch.weights)
