"""The class density: a score of an image that depends only on its predicted class."""

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
    """Return d = g(y) per class, float32 [C], each in [0, 1] (ODSD, REC .45).

    counts_C: images per class [C]. mean_outlier_C: mean outlier distance per class [C]. scarcity is
    1 - n_y / max n, population is n_y / max n, and compactness is 1 - the mean outlier distance of
    the class over that of the class with the largest. Raises ValueError for compactness without
    the distances.

    Example:
        >>> class_density("scarcity", np.array([10, 5])).tolist()
        [0.0, 0.5]
    """
    share = counts_C / max(int(counts_C.max(initial=0)), 1)
    if kind == "scarcity":
        return (1.0 - share).astype(np.float32)
    if kind == "population":
        return share.astype(np.float32)
    if kind == "compactness":
        if mean_outlier_C is None:
            raise ValueError(
                "compactness needs the mean outlier distance of each class: pass mean_outlier_C"
            )
        largest = max(float(mean_outlier_C.max(initial=0.0)), 1e-12)
        return (1.0 - mean_outlier_C / largest).astype(np.float32)
    return np.zeros(len(counts_C), np.float32)
