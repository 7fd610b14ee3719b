"""KD3's feature alignment: maps of a sample count by how far its predictions still are apart."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.losses._precision import check_maps, check_rows, check_weights, full_precision
from distill.losses.feature_mse import feature_mse


@full_precision
def alignment_weight(student_BC: Tensor, teacher_BC: Tensor) -> Tensor:
    """sigmoid(||t - s||_2) of logits [B, C] -> [B] in [0.5, 1], detached.

    SOURCE (the release of KD3, arXiv 2307.11469). Raises LossError for unequal shapes.
    """
    check_rows(student_BC, teacher_BC, same_width=True)
    distance_B: Tensor = torch.linalg.vector_norm(teacher_BC - student_BC, dim=1)
    return distance_B.detach().sigmoid()


@full_precision
def weighted_feature_mse(student_BDHW: Tensor, teacher_BDHW: Tensor, weight_B: Tensor) -> Tensor:
    """w mean_{D,H,W} (f_S - f_T)^2 of maps of one shape -> [B].

    student_BDHW: the student's map after its projector; weight_B: `alignment_weight`. SOURCE (the
    release of KD3, arXiv 2307.11469). Raises LossError for unequal shapes, or weights not [B].
    """
    check_maps(student_BDHW, teacher_BDHW)
    check_weights(weight_B, len(student_BDHW))
    return weight_B * feature_mse(student_BDHW, teacher_BDHW, normalized=False)
