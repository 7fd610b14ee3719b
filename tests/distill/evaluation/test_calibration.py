"""Expected calibration error: compared with a double loop over bins and images; properties."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.evaluation.calibration import NUM_BINS, expected_calibration_error

# The edges of the bins are tested too: rounding errors occur there.
CONFIDENCES = st.one_of(
    st.floats(0, 1, width=32), st.integers(0, NUM_BINS).map(lambda edge: edge / NUM_BINS)
)


def slow(confidences: list[float], hits: list[bool]) -> float:
    total = 0.0
    for number in range(NUM_BINS):
        in_bin = []
        for confidence, hit in zip(confidences, hits, strict=True):
            above = confidence > number / NUM_BINS or (number == 0 and confidence == 0)
            if above and confidence <= (number + 1) / NUM_BINS:
                in_bin.append((confidence, hit))
        if in_bin:
            mean_confidence = sum(confidence for confidence, _ in in_bin) / len(in_bin)
            accuracy = sum(hit for _, hit in in_bin) / len(in_bin)
            total += len(in_bin) / len(confidences) * abs(accuracy - mean_confidence)
    return total


@given(st.lists(st.tuples(CONFIDENCES, st.booleans()), min_size=1, max_size=60))
def test_the_error_equals_a_double_loop(pairs: list[tuple[float, bool]]) -> None:
    confidences, hits = [list(column) for column in zip(*pairs, strict=True)]
    ece = expected_calibration_error(np.array(confidences), np.array(hits))
    assert ece == pytest.approx(slow(confidences, hits), abs=1e-12)
    assert 0 <= ece <= 1
    reversed_ece = expected_calibration_error(np.array(confidences[::-1]), np.array(hits[::-1]))
    assert reversed_ece == pytest.approx(ece)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_error_matches_hand_computed_values(dtype: npt.DTypeLike) -> None:
    ones = np.ones(40, dtype)
    assert expected_calibration_error(ones, np.zeros(40, bool)) == 1
    assert expected_calibration_error(ones, np.ones(40, bool)) == 0
    assert expected_calibration_error(0 * ones, np.zeros(40, bool)) == 0
    # In one bin, 3 of 4 are right at a confidence of .75. In another bin, 1 of 2 is right at .5.
    confidences = np.array([0.75] * 4 + [0.5] * 2, dtype)
    hits = np.array([1, 1, 1, 0, 1, 0], bool)
    assert expected_calibration_error(confidences, hits) == pytest.approx(0, abs=1e-7)
    # Errors of opposite sign cancel within a bin but not between bins.
    assert expected_calibration_error(confidences, ~hits) == pytest.approx(4 / 6 * 0.5)
    # Bin m holds (m - 1) / M < confidence <= m / M. So bin 5 holds .3 and one third, but not .35.
    thirds = np.array([1 / 3, 0.3, 0.35])
    ece = expected_calibration_error(thirds, np.array([True, False, False]))
    assert ece == pytest.approx((abs(1 - 1 / 3 - 0.3) + 0.35) / 3)


def test_calibrated_confidences_have_no_error() -> None:
    generator = np.random.default_rng(0)
    confidences = generator.uniform(0.1, 1, 200_000)
    hits = generator.uniform(size=200_000) < confidences
    assert expected_calibration_error(confidences, hits) < 0.01
    assert (
        expected_calibration_error(confidences, hits & (generator.uniform(size=200_000) < 0.5))
        > 0.2
    )


@pytest.mark.parametrize(
    ("confidences", "hits", "message"),
    [
        (np.zeros(0), np.zeros(0, bool), "N above 0"),
        (np.zeros(3), np.zeros(2, bool), r"\(3,\) and \(2,\)"),
        (np.zeros((3, 2)), np.zeros((3, 2), bool), r"the same shape \[N\]"),
        (np.array([1.1]), np.zeros(1, bool), "between 0 and 1"),
        (np.array([np.nan]), np.zeros(1, bool), "between 0 and 1"),
    ],
)
def test_bad_shapes_and_values_raise(
    confidences: npt.NDArray[np.float64], hits: npt.NDArray[np.bool_], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(confidences, hits)
