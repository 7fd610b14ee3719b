"""DIST: match correlations instead of probabilities, within an image and within a class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses._precision import (
    check_positive,
    check_rows,
    full_precision,
    partner_weights,
)

MIN_NORM = 1e-8  # of a row of centered probabilities. SOURCE (the release)


@full_precision
def dist_inter(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """T^2 (1 - r) per image -> [B] in [0, 2 T^2]: r correlates an image's softened probabilities.

    Logits are [B, C]; r is Pearson's correlation of softmax(s / T) and softmax(t / T) over the
    classes. SOURCE (Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022,
    arXiv 2205.10536). Raises LossError for unequal shapes or T <= 0.

    Example:
        >>> logits_BC = torch.tensor([[2.0, 0.0, 1.0]])
        >>> dist_inter(logits_BC, logits_BC, 4.0).round(decimals=4).tolist()
        [0.0]
    """
    student, teacher = _softened(student_BC, teacher_BC, temperature)
    return temperature**2 * (1 - _correlation(student, teacher, torch.ones_like(student[:1])))


@full_precision
def dist_intra(
    student_BC: Tensor,
    teacher_BC: Tensor,
    temperature: float,
    *,
    weights_B: Tensor | None = None,
) -> Tensor:
    """T^2 (1 - r) of a batch -> [B], the same value for every image: r correlates the images.

    For each class, r is Pearson's correlation over the batch of its softened probabilities in
    student and teacher; the value is the mean over the classes. SOURCE (Huang et al., arXiv
    2205.10536). An image counts with its weight w_i (1 by default). A class whose probability the
    teacher does not vary adds nothing. OURS.
    Raises LossError for unequal shapes, B < 2 or T <= 0.

    Example:
        >>> logits_BC = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> dist_intra(logits_BC, logits_BC, 4.0).abs().round(decimals=4).tolist()
        [0.0, 0.0]
    """
    student, teacher = _softened(student_BC, teacher_BC, temperature, least=2)
    weights = partner_weights(weights_B, student)
    correlation_C = _correlation(student.T, teacher.T, weights[None])
    return (temperature**2 * (1 - correlation_C).mean()).expand(len(student))


def _softened(
    student_BC: Tensor, teacher_BC: Tensor, temperature: float, *, least: int = 1
) -> tuple[Tensor, Tensor]:
    check_rows(student_BC, teacher_BC, same_width=True, least=least)
    check_positive("temperature", temperature)
    return (student_BC / temperature).softmax(1), (teacher_BC / temperature).softmax(1)


def _correlation(first_RN: Tensor, second_RN: Tensor, weights_1N: Tensor) -> Tensor:
    """Pearson's correlation [R] of rows [R, N] with weights [1, N]; 1 if the second is constant."""
    total = weights_1N.sum().clamp_min(torch.finfo(first_RN.dtype).tiny)
    first, second = (
        (x - (weights_1N * x).sum(1, keepdim=True) / total) * weights_1N.sqrt()
        for x in (first_RN, second_RN)
    )
    correlation = F.cosine_similarity(first, second, dim=1, eps=MIN_NORM)
    constant = second.detach().norm(dim=1) <= MIN_NORM
    return correlation.masked_fill(constant, 1.0)
