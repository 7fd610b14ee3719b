"""Class density score: what the crowding of its predicted class says for an image."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["none", "scarcity", "population", "compactness"]


def class_density(
    kind: Kind,
    counts_C: npt.NDArray[np.int64],
    mean_outlier_C: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float32]:
    """d = g(y) per class, float32 [C], each in [0, 1] (ODSD, REC .45).

    scarcity 1 - n_y / max n; population n_y / max n; compactness 1 - mean outlier distance of the
    class (scaled by its largest). Raises ValueError for compactness without the distances.
    """
    share = counts_C / max(int(counts_C.max(initial=0)), 1)
    if kind == "scarcity":
        return (1.0 - share).astype(np.float32)
    if kind == "population":
        return share.astype(np.float32)
    if kind == "compactness":
        if mean_outlier_C is None:
            raise ValueError("compactness needs the mean outlier distance of each class")
        largest = max(float(mean_outlier_C.max(initial=0.0)), 1e-12)
        return (1.0 - mean_outlier_C / largest).astype(np.float32)
    return np.zeros(len(counts_C), np.float32)
