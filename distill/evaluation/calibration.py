"""Calibration: how far a net's confidence lies from how often it is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

NUM_BINS = 15  # SOURCE: Guo et al. 2017, section 5


def expected_calibration_error(
    confidence_N: npt.NDArray[np.floating[Any]], hits_N: npt.NDArray[np.bool_]
) -> float:
    """ECE in 0-1 of the largest softmax probabilities [N] and whether they were right [N].

    sum_m n_m / N * abs(acc_m - conf_m) over M = NUM_BINS bins of equal width, where bin m holds the
    n_m images with (m - 1) / M < confidence <= m / M, and acc_m and conf_m are their mean hit and
    mean confidence: equation 3 of Guo et al., "On Calibration of Modern Neural Networks", ICML 2017
    (arXiv 1706.04599). SOURCE. ValueError for no images, unequal lengths or confidences outside
    0-1.
    """
    if confidence_N.ndim != 1 or confidence_N.shape != hits_N.shape or not len(hits_N):
        raise ValueError(
            f"confidences and hits are one [N] each, N above 0; not {confidence_N.shape} and "
            f"{hits_N.shape}"
        )
    confidence_N = confidence_N.astype(np.float64)
    if not (np.greater_equal(confidence_N, 0) & np.less_equal(confidence_N, 1)).all():
        raise ValueError("confidences are between 0 and 1")
    bins_N = np.searchsorted(np.arange(1, NUM_BINS + 1) / NUM_BINS, confidence_N)
    # n_m * (acc_m - conf_m) is the sum of the differences, so no bin is divided by its count.
    gaps = np.bincount(bins_N, weights=hits_N - confidence_N, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(hits_N))
