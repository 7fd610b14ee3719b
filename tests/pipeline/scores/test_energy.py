"""Energy: the logsumexp of the logits."""

from __future__ import annotations

import numpy as np

from pipeline.scores.energy import energy


def test_energy_is_the_logsumexp() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 4)) * 3
    expected = [np.log(sum(np.exp(logit) for logit in row)) for row in logits]
    score = energy(np.log(np.exp(logits).sum(1)))
    np.testing.assert_allclose(score, expected, rtol=1e-6)
    assert score.dtype == np.float32
