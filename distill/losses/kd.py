"""Knowledge distillation: T^2 KL(teacher || student) of softened softmaxes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from distill.losses._precision import check_positive, check_rows, full_precision


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
