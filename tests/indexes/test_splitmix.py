"""splitmix64 equals the published generator."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes.splitmix import splitmix64


def scalar_splitmix(x: int) -> int:
    mask = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


@given(st.integers(0, 2**64 - 1))
@settings(max_examples=50, deadline=None)
def test_splitmix_equals_the_published_generator(x: int) -> None:
    assert int(splitmix64(np.array([x], np.uint64))[0]) == scalar_splitmix(x)


def test_splitmix_gives_the_known_value() -> None:
    # The first output of the reference generator seeded with 0.
    assert int(splitmix64(np.zeros(1, np.uint64))[0]) == 0xE220A8397B1DCDAF
