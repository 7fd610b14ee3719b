"""The cadence of measurements: frequent, but at a small share of the training time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distill.training.cadence import HELDOUT_FRAC, NUM_AGREEMENTS, Cadence


@given(st.integers(1, 10**6), st.integers(4, 4096), st.integers(1, 2000))
def test_agreement_takes_at_most_its_share_of_the_images(
    steps: int, per_step: int, num_heldout: int
) -> None:
    every = Cadence(0, steps, per_step, num_heldout).agreement_steps
    assert num_heldout <= HELDOUT_FRAC * every * per_step * (1 + 1e-9)
    assert every >= steps // NUM_AGREEMENTS
    is_needed = (every - 1) * per_step * HELDOUT_FRAC < num_heldout
    assert every == max(1, steps // NUM_AGREEMENTS) or is_needed, "no less often than necessary"
