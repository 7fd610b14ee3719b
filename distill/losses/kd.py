"""Knowledge distillation: T^2 KL(teacher || student) of softened softmaxes, also of z-scores."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from distill.losses._precision import LossError, check_positive, check_rows, full_precision, unit


@full_precision
def kd(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(t / T) || softmax(s / T)) of logits [B, C] -> [B], in nats.

    SOURCE (Hinton et al., arXiv 1503.02531). The value is finite for finite logits: a class whose
    teacher probability is zero adds zero. Raises LossError for unequal shapes or T <= 0.

    Example:
        >>> import torch
        >>> teacher_BC = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> kd(teacher_BC, teacher_BC, 4.0).tolist()
        [0.0, 0.0]
    """
    check_rows(student_BC, teacher_BC, same_width=True)
    check_positive("temperature", temperature)
    student_log = F.log_softmax(student_BC / temperature, dim=1)
    teacher_log = F.log_softmax(teacher_BC / temperature, dim=1)
    divergence = (teacher_log.exp() * (teacher_log - student_log)).sum(1)
    return temperature**2 * divergence


@full_precision
def standardized_kd(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(z(t) / T) || softmax(z(s) / T)) of logits [B, C] -> [B], in nats.

    z subtracts the mean of an image's logits and divides by their standard deviation (of a sample:
    C - 1). A student may therefore keep a scale of its own. An image whose logits are all equal has
    z = 0. SOURCE (Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024, arXiv
    2403.01427). Raises LossError for unequal shapes, fewer than two classes or T <= 0.

    Example:
        >>> import torch
        >>> teacher_BC = torch.tensor([[2.0, 0.0, 1.0]])
        >>> standardized_kd(10 * teacher_BC + 3, teacher_BC, 2.0).tolist()
        [0.0]
    """
    check_rows(student_BC, teacher_BC, same_width=True)
    if student_BC.shape[1] < 2:
        raise LossError(f"at least 2 classes are needed, not {student_BC.shape[1]}")
    return kd(z_scored(student_BC), z_scored(teacher_BC), temperature)


def z_scored(logits_BC: Tensor) -> Tensor:
    """Return each row of [B, C] less its mean, divided by its standard deviation. SOURCE.

    Example:
        >>> import torch
        >>> z_scored(torch.tensor([[1.0, 2.0, 3.0]])).round(decimals=4).tolist()
        [[-1.0, 0.0, 1.0]]
    """
    return unit(logits_BC - logits_BC.mean(1, keepdim=True)) * math.sqrt(logits_BC.shape[1] - 1)
