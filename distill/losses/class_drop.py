"""Class-dropping: distillation on the classes that the teacher finds likely."""

from __future__ import annotations

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

    Logits are [B, C]. In the spirit of EIKD (arXiv 2302.08771), which drops classes against label
    noise on shifted data (SOURCE); the details are not published (REC .4). Each sample keeps the
    teacher's `keep` most likely classes, or the fewest whose unsoftened probability reaches `mass`;
    the most likely class is always kept. The form decides about the dropped classes (OURS):

    - rest_bin: both sides get one more bin with the sum of the dropped classes. The student learns
      the teacher's dropped mass, but not how it is spread.
    - both: both sides are renormalized over the kept classes. No gradient reaches a dropped logit,
      so the student's dropped mass drifts.
    - truncate: the teacher is renormalized over the kept classes, the student over all. This drives
      the dropped mass to zero. The minimum of this form is above zero.

    If every class is kept, all three equal `kd` to the bit. The value is finite for finite logits.
    Raises LossError for unequal shapes, T <= 0, an unknown form, or unless exactly one of
    keep >= 1 and 0 < mass <= 1 is given.

    Example:
        >>> logits_BC = torch.tensor([[4.0, 1.0, 0.0]])
        >>> class_drop(logits_BC, logits_BC, temperature=4.0, keep=1).tolist()
        [0.0]
    """
    check_rows(student_BC, teacher_BC, same_width=True)
    check_positive("temperature", temperature)
    if form not in get_args(Form):
        raise LossError(f"form must be one of {', '.join(get_args(Form))}, not {form!r}")
    dropped = ~_kept(teacher_BC, keep, mass)
    student, teacher = student_BC / temperature, teacher_BC / temperature
    # A finite mask value keeps 0 * (x - y) at zero; with -inf it would be NaN.
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
    # Only all classes together have mass 1, but a sum of rounded probabilities reaches 1 earlier.
    return kept.scatter(1, order, (above < mass) | (mass == 1))
