"""The squared distance between the student's and the teacher's features or maps."""

from __future__ import annotations

from torch import Tensor

from distill.losses._precision import check_features, full_precision, unit


@full_precision
def feature_mse(student: Tensor, teacher: Tensor, *, normalized: bool) -> Tensor:
    """Squared distance of features [B, D] or maps [B, D, H, W] of equal shape -> [B].

    With `normalized` it is `||n(h_S) - n(h_T)||^2` in [0, 4], where n scales all values of a sample
    to length 1 together. In a map the strong positions then count most, and positions without
    activation add nothing. OURS (EIKD's explicit term is REC .6). Otherwise it is the mean of
    the squared differences over all axes but B. SOURCE (the release of HiDFD, arXiv 2412.13525).
    Raises LossError for unequal shapes, or tensors that have neither 2 nor 4 axes.

    Example:
        >>> import torch
        >>> feature_mse(torch.ones(1, 4), torch.zeros(1, 4), normalized=False).tolist()
        [1.0]
    """
    check_features(student, teacher)
    first, second = student.flatten(1), teacher.flatten(1)
    if normalized:
        return (unit(first) - unit(second)).square().sum(1)
    return (first - second).square().mean(1)
