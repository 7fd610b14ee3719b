"""Class-dropping: distillation on the classes that the teacher holds likely, the rest in one."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses._precision import LossError, check_positive, check_rows, full_precision

Form = Literal["rest_bin", "both", "truncate"]


@full_precision
def class_drop(
    student_BC: Tensor,
    teacher_BC: Tensor,
    *,
    temperature: float,
    keep: int | None = None,
    mass: float | None = None,
    form: Form = "rest_bin",
) -> Tensor:
    """T^2 KL(teacher || student) of softened softmaxes over kept classes -> [B], in nats.

    In the spirit of EIKD (arXiv 2302.08771), which drops classes against the noise of labels on
    shifted data (SOURCE) in a way that could not be read (REC .4). Kept, per sample: the teacher's
    `keep` likeliest classes, or the fewest whose un-softened probability reaches `mass`; its
    likeliest always. The forms differ in what becomes of the others (OURS):
    - rest_bin: both sides have one more bin, the sum of what was dropped; the student keeps the
      teacher's dropped mass without being told how it is spread.
    - both: both sides renormalized over the kept; no gradient reaches a dropped logit, and their
      mass drifts.
    - truncate: the teacher renormalized over the kept, the student over all; the dropped mass is
      driven to zero. The least value is above zero.
    With every class kept all three are `kd`, to the bit. Finite for any finite logits.
    Raises LossError for unequal shapes, T <= 0, an unknown form, or unless exactly one of
    keep >= 1 and 0 < mass <= 1 is given.
    """
    check_rows(student_BC, teacher_BC, same_width=True)
    check_positive("temperature", temperature)
    if form not in get_args(Form):
        raise LossError(f"form must be one of {', '.join(get_args(Form))}, not {form!r}")
    dropped = ~_kept(teacher_BC, keep, mass)
    student, teacher = student_BC / temperature, teacher_BC / temperature
    # A finite shut-out keeps 0 * (x - y) at zero where -inf would make it NaN.
    low = torch.finfo(student.dtype).min / 4
    if form != "rest_bin":
        teacher = teacher.masked_fill(dropped, low)
    if form == "both":
        student = student.masked_fill(dropped, low)
    student_log, teacher_log = F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1)
    terms = teacher_log.exp() * (teacher_log - student_log)
    divergence = terms.masked_fill(dropped, 0.0).sum(1)
    if form == "rest_bin":
        student_rest, teacher_rest = (
            x.masked_fill(~dropped, low).logsumexp(1) for x in (student_log, teacher_log)
        )
        divergence = divergence + teacher_rest.exp() * (teacher_rest - student_rest)
    return temperature**2 * divergence


def default_keep(num_classes: int) -> int:
    """sqrt(C) classes, or a twentieth of them where that is more: 3 of 10, 10 of 100, 50 of 1000.

    OURS; always fewer than C. Raises LossError for C < 2, where nothing can be dropped.
    """
    if num_classes < 2:
        raise LossError(f"at least 2 classes are wanted, not {num_classes}")
    return max(math.isqrt(num_classes), num_classes // 20)


def _kept(teacher_BC: Tensor, keep: int | None, mass: float | None) -> Tensor:
    """The classes that stay, bool [B, C]."""
    if (keep is None) == (mass is None):
        raise LossError(f"give one of keep and mass, not keep={keep} and mass={mass}")
    kept = torch.zeros_like(teacher_BC, dtype=torch.bool)
    if keep is not None:
        if keep < 1:
            raise LossError(f"keep must be at least 1, not {keep}")
        return kept.scatter(1, teacher_BC.topk(min(keep, kept.shape[1]), dim=1).indices, True)
    assert mass is not None
    if not 0 < mass <= 1:
        raise LossError(f"mass must be above 0 and at most 1, not {mass}")
    logits, order = teacher_BC.detach().sort(dim=1, descending=True)
    above = F.pad(logits.softmax(1).cumsum(1)[:, :-1], (1, 0))
    # Only all classes have mass 1, but a sum of rounded probabilities gets there earlier.
    return kept.scatter(1, order, (above < mass) | (mass == 1))
