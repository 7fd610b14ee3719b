"""The BatchNorm distance: how far an image's statistics are from those of the lost data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LEAST = 1e-6
FIRST, LAST = 0.1, 0.7
"""The range of layers that are averaged, as shares of the net's depth."""


def bn_distance(bn_NL: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    """Return the mean log distance over the middle layers, float32 [N]; small values are near.

    bn_NL: the distance of each image in each of L layers (pipeline/embedding/bn_stats.py). The
    distances of layers differ in scale. With logarithms, a factor common to a layer shifts all
    images equally. The layers from a tenth to seven tenths of the net's depth recognize the lost
    data best (OURS): the area under the ROC curve on real images is .69, against .62 for all
    layers. The first layers see only colors, and the last layers see the class.

    Example:
        >>> bn_distance(np.ones((1, 10), np.float16)).tolist()
        [0.0]
    """
    depth = bn_NL.shape[1]
    first, last = int(FIRST * depth), max(int(LAST * depth), 1)
    logs = np.log(np.maximum(bn_NL[:, first:last].astype(np.float32), np.float32(LEAST)))
    mean: npt.NDArray[np.float32] = logs.mean(axis=1, dtype=np.float32)
    return mean
