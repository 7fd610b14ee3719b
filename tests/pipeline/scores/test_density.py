"""Every kind of class density."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.scores.density import class_density


def test_every_kind_of_density_matches_values_by_hand() -> None:
    counts = np.array([10, 5, 0])
    np.testing.assert_allclose(class_density("scarcity", counts), [0, 0.5, 1])
    np.testing.assert_allclose(class_density("population", counts), [1, 0.5, 0])
    np.testing.assert_allclose(class_density("none", counts), [0, 0, 0])
    compact = class_density("compactness", counts, np.array([0.1, 0.2, 0.0]))
    np.testing.assert_allclose(compact, [0.5, 0, 1])
    with pytest.raises(ValueError, match="mean outlier"):
        class_density("compactness", counts)
