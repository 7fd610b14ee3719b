"""Features or maps of the student against the teacher's: a squared distance."""

from __future__ import annotations

from torch import Tensor

from distill.losses._precision import check_features, full_precision, unit


@full_precision
def feature_mse(student: Tensor, teacher: Tensor, *, normalized: bool) -> Tensor:
    """Squared distance of features [B, D] or maps [B, D, H, W] of one shape -> [B].

    normalized: || n(h_S) - n(h_T) ||^2, in [0, 4], n over all of a sample's numbers: of a map the
    strong positions count, and one where no channel fires has no direction to be wrong in. OURS
    (EIKD's explicit term is REC .6). Otherwise the mean of the squared differences over all axes
    but B. SOURCE (the release of HiDFD, arXiv 2412.13525).
    Raises LossError for unequal shapes or other group.
    """
    check_features(student, teacher)
    first, second = student.flatten(1), teacher.flatten(1)
    if normalized:
        return (unit(first) - unit(second)).square().sum(1)
    return (first - second).square().mean(1)
