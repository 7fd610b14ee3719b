"""KD3's feature alignment: a sample counts more, the further its predictions are apart."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.losses._precision import check_maps, check_rows, check_weights, full_precision
from distill.losses.feature_mse import feature_mse


@full_precision
def alignment_weight(student_BC: Tensor, teacher_BC: Tensor) -> Tensor:
    """Return the weight `sigmoid(||t - s||_2)` of logits [B, C] -> [B] in [0.5, 1], detached.

    SOURCE (the release of KD3, arXiv 2307.11469). Raises LossError for unequal shapes.

    Example:
        >>> alignment_weight(torch.zeros(2, 3), torch.zeros(2, 3)).tolist()
        [0.5, 0.5]
    """
    check_rows(student_BC, teacher_BC, same_width=True)
    distance_B: Tensor = torch.linalg.vector_norm(teacher_BC - student_BC, dim=1)
    return distance_B.detach().sigmoid()


@full_precision
def weighted_feature_mse(student_BDHW: Tensor, teacher_BDHW: Tensor, weight_B: Tensor) -> Tensor:
    """Weighted squared distance w mean (f_S - f_T)^2 of maps [B, D, H, W] -> [B].

    The mean is over D, H and W. `student_BDHW` is the student's map after its projector, `weight_B`
    [B] comes from `alignment_weight`. SOURCE (the release of KD3, arXiv 2307.11469).
    Raises LossError for unequal shapes, or weights that are not [B].

    Example:
        >>> map_BDHW = torch.ones(1, 2, 4, 4)
        >>> weighted_feature_mse(map_BDHW, 3 * map_BDHW, torch.tensor([0.5])).tolist()
        [2.0]
    """
    check_maps(student_BDHW, teacher_BDHW)
    check_weights(weight_B, len(student_BDHW))
    return weight_B * feature_mse(student_BDHW, teacher_BDHW, normalized=False)
