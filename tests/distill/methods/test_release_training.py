"""The preset `faithful` has the learning rate of its release in every epoch."""

from __future__ import annotations

import pytest

from distill.config import make_recipe
from distill.training.optim import learning_rate
from indexes.plugins import find, preset


def release_rate(method: str, epoch: int) -> float:
    """The rate of an epoch, counted from 1: of 33 for DFND, of 240 for KD3 and HiDFD."""
    if method == "dfnd":
        # The length that is rounded down to 34 is never reached: the last epoch is the 33rd.
        return 0.1 if epoch < 13.6 else 0.01 if epoch < 27.2 else 0.001
    return 0.05 * 0.1 ** sum(epoch > last for last in (150, 180, 210))


@pytest.mark.parametrize("method", ["dfnd", "kd3", "hidfd"])
def test_the_learning_rate_is_that_of_the_release_in_every_epoch(method: str) -> None:
    fields = preset(find("distill.methods", method), "faithful").recipe
    recipe = make_recipe(fields, {}, 600_000)
    epochs = 33 if method == "dfnd" else 240
    for epoch in range(1, epochs + 1):
        for within in (1e-6, 0.5, 1 - 1e-6):  # the rate is constant within an epoch
            progress = (epoch - 1 + within) / epochs
            rate = learning_rate(progress, recipe.lr, recipe.drop_at, recipe.warmup_frac)
            assert rate == pytest.approx(release_rate(method, epoch), rel=1e-12), epoch
