"""Importance weights of the selected rows: mean 1, capped, effective sample size reported."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Weighing = Literal["none", "class_prior"]


def weigh(weighing: Weighing, label: Array, num_classes: int, cap: float) -> Array:
    """Weights float32 [n] with mean 1.

    class_prior: every class present should weigh the same, so an image of class y gets
    (n / C') / n_y over the C' classes present, at most `cap` times the mean (OURS).
    """
    if weighing == "none" or not len(label):
        return np.ones(len(label), np.float32)
    if not cap >= 1:
        raise ValueError(f"weight_cap={cap}: a cap below 1 leaves no weights of mean 1")
    counts = np.bincount(label, minlength=num_classes)
    share = len(label) / max(int((counts > 0).sum()), 1)
    return capped((share / np.maximum(counts, 1))[label], cap)


def capped(weight: Array, cap: float) -> Array:
    """Weights [n] scaled to mean 1 with none above `cap`; the excess goes to the others."""
    weight = weight / weight.mean()
    over = np.zeros(len(weight), bool)
    while (weight[~over] > cap * (1 + 1e-9)).any():
        over |= weight > cap
        weight[over] = cap
        rest = len(weight) - cap * over.sum()
        if rest <= 0 or over.all():
            return np.ones(len(weight), np.float32)
        weight[~over] *= rest / weight[~over].sum()
    return weight.astype(np.float32)
