"""Calibration: how far the confidence of a net lies from its accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

NUM_BINS = 15  # SOURCE: Guo et al. 2017, section 5


def expected_calibration_error(
    confidence_N: npt.NDArray[np.floating[Any]], hits_N: npt.NDArray[np.bool_]
) -> float:
    """Return the expected calibration error (ECE) of N predictions, in 0-1.

    `confidence_N` [N] holds the largest softmax probability of each image. `hits_N` [N] holds
    whether the prediction is right. With M = NUM_BINS bins of equal width::

        ECE = sum_m n_m / N * abs(acc_m - conf_m)

    Bin m holds the n_m images with (m - 1) / M < confidence <= m / M; acc_m is their mean hit and
    conf_m their mean confidence. SOURCE: equation 3 of Guo et al., "On Calibration of Modern Neural
    Networks", ICML 2017 (arXiv 1706.04599).

    Raises ValueError if there are no images, if the lengths differ, or if a confidence is outside
    0-1.

    Example:
        >>> confidences = np.array([0.75, 0.75, 0.75, 0.75])
        >>> expected_calibration_error(confidences, np.array([True, True, True, False]))
        0.0
    """
    if confidence_N.ndim != 1 or confidence_N.shape != hits_N.shape or not len(hits_N):
        raise ValueError(
            "confidences and hits must have the same shape [N], with N above 0; their shapes are "
            f"{confidence_N.shape} and {hits_N.shape}"
        )
    confidence_N = confidence_N.astype(np.float64)
    if not (np.greater_equal(confidence_N, 0) & np.less_equal(confidence_N, 1)).all():
        raise ValueError("confidences must be between 0 and 1: give probabilities, not logits")
    bins_N = np.searchsorted(np.arange(1, NUM_BINS + 1) / NUM_BINS, confidence_N)
    # n_m * (acc_m - conf_m) is the sum of the differences in a bin, so the counts are not needed.
    gaps = np.bincount(bins_N, weights=hits_N - confidence_N, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(hits_N))
