"""Weights: mean 1, no weight above the cap, classes evened out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.weights import capped, weigh


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.floats(1.0, 8.0))
def test_mean_one_and_capped(labels: list[int], cap: float) -> None:
    weight = weigh("class_prior", np.array(labels), 5, cap)
    assert weight.mean() == pytest.approx(1.0, rel=1e-4)
    assert weight.max() <= cap * 1.001
    assert weight.min() > 0


def test_class_prior_evens_classes_out() -> None:
    label = np.repeat([0, 1, 2], [60, 30, 10])
    weight = weigh("class_prior", label, 4, cap=10)
    sums = np.bincount(label, weight)
    np.testing.assert_allclose(sums, sums.mean(), rtol=1e-5)
    assert (weigh("none", label, 4, cap=10) == 1).all()


def test_cap_gives_the_excess_to_the_others() -> None:
    weight = capped(np.array([100.0, 1, 1, 1]), 2.0)
    np.testing.assert_allclose(weight, [2, 2 / 3, 2 / 3, 2 / 3], rtol=1e-6)


def test_a_cap_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="weight_cap"):
        weigh("class_prior", np.zeros(3, int), 1, cap=0.5)
