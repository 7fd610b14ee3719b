"""The energy score: how much evidence for any class the teacher finds in an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def energy(logsumexp_N: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """Return -E = logsumexp of the logits, float32 [N]; high for in-distribution images.

    logsumexp_N: the logsumexp of each image's logits [N]. Liu et al., Energy-based
    Out-of-distribution Detection (NeurIPS 2020), T = 1; SOURCE.
    """
    return logsumexp_N.astype(np.float32)
