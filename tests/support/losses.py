"""Every loss as a function of two matrices [B, K], to test what all losses have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distill.losses.attention import attention
from distill.losses.class_drop import Form, class_drop
from distill.losses.dist import dist_inter, dist_intra
from distill.losses.feature_mse import feature_mse
from distill.losses.infonce import infonce
from distill.losses.kd import kd, standardized_kd
from distill.losses.ntxent import ntxent
from distill.losses.relation_kl import relation_kl
from distill.losses.rkd import rkd_angle, rkd_distance
from distill.losses.similarity_preserving import similarity_preserving
from distill.losses.subspace import classifier_subspace, subspace
from distill.losses.supervised_contrastive import supervised_contrastive
from distill.losses.transition import noise_matrix, transition
from distill.losses.weighted_feature_mse import alignment_weight, weighted_feature_mse
from tests.support.reference import normal


@dataclass(frozen=True, kw_only=True)
class Case:
    """A loss called as `loss(student, teacher, T or tau)`; a relation also takes `weights_B`."""

    loss: Callable[..., Tensor]
    least: int = 1
    zero_when_equal: bool = True

    @property
    def relational(self) -> bool:
        return self.least > 1

    def __call__(
        self,
        student: Tensor,
        teacher: Tensor,
        heat: float = 0.5,
        weights_B: Tensor | None = None,
    ) -> Tensor:
        options: dict[str, Any] = {"weights_B": weights_B} if self.relational else {}
        return self.loss(student, teacher, heat, **options)


def dropped(form: Form, **limits: Any) -> Callable[..., Tensor]:
    return lambda s, t, heat: class_drop(s, t, temperature=heat, form=form, **limits)


def in_subspace(student: Tensor, teacher: Tensor, _: float) -> Tensor:
    basis = classifier_subspace(normal(4, teacher.shape[1], seed=9), 2)
    return subspace(student, teacher, basis.to(teacher.dtype))


def through_noise(student: Tensor, teacher: Tensor, _: float) -> Tensor:
    num = teacher.shape[1]
    if num <= 64:
        noise = noise_matrix(normal(num, num - 1, seed=9).to(teacher.dtype), 0.9)
    else:  # A matrix of 21,841 squared takes 1.9 GB. One expanded number is also stochastic.
        noise = torch.full((1, 1), 1 / num, dtype=torch.float32).expand(num, num)
    return transition(student, teacher.argmax(1), noise)


def weighted_maps(student: Tensor, teacher: Tensor, _: float) -> Tensor:
    return weighted_feature_mse(
        as_map(student), as_map(teacher), alignment_weight(-teacher, teacher)
    )


def contrast_of_two_classes(
    student: Tensor, teacher: Tensor, heat: float, weights_B: Tensor | None
) -> Tensor:
    """Compare the students' rows; the sign of the teacher's first value is the class."""
    classes = (teacher[:, 0] > teacher[:, 0].mean()).long()
    return supervised_contrastive(student, classes, tau=heat, weights_B=weights_B)


def as_map(x: Tensor) -> Tensor:
    return x[:, None, None]


def relation(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda s, t, _, weights_B: loss(s, t, weights_B)


CASES = {
    "kd": Case(loss=kd),
    "kd-standardized": Case(loss=standardized_kd),
    "dist-inter": Case(loss=dist_inter),
    "dist-intra": Case(
        loss=lambda s, t, heat, weights_B: dist_intra(s, t, heat, weights_B=weights_B), least=2
    ),
    "class_drop-rest_bin": Case(loss=dropped("rest_bin", keep=2)),
    "class_drop-rest_bin-all": Case(loss=dropped("rest_bin", keep=30000)),
    "class_drop-rest_bin-mass": Case(loss=dropped("rest_bin", mass=0.7)),
    "class_drop-both": Case(loss=dropped("both", keep=2)),
    "class_drop-truncate": Case(loss=dropped("truncate", keep=2), zero_when_equal=False),
    "transition": Case(loss=through_noise, zero_when_equal=False),
    "subspace": Case(loss=in_subspace),
    "feature_mse": Case(loss=lambda s, t, _: feature_mse(s, t, normalized=False)),
    "feature_mse-normalized": Case(loss=lambda s, t, _: feature_mse(s, t, normalized=True)),
    "weighted_feature_mse": Case(loss=weighted_maps),
    "attention": Case(loss=lambda s, t, _: attention(as_map(s), as_map(t))),
    "ntxent": Case(
        loss=lambda s, t, heat, weights_B: ntxent(s, t, tau=heat, weights_B=weights_B),
        least=2,
        zero_when_equal=False,
    ),
    "supervised_contrastive": Case(loss=contrast_of_two_classes, least=2, zero_when_equal=False),
    "infonce": Case(
        loss=lambda s, t, heat, weights_B: infonce(s, t, tau=heat, weights_B=weights_B),
        least=2,
        zero_when_equal=False,
    ),
    "relation_kl": Case(
        loss=lambda s, t, heat, weights_B: relation_kl(s, t, tau=heat, weights_B=weights_B),
        least=2,
    ),
    "rkd-distance": Case(loss=relation(rkd_distance), least=2),
    "rkd-angle": Case(loss=relation(rkd_angle), least=3),
    "similarity_preserving": Case(loss=relation(similarity_preserving), least=2),
}
