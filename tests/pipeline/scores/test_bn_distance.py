"""BatchNorm distance: a mean of logarithms over the middle layers."""

from __future__ import annotations

import numpy as np

from pipeline.scores.bn_distance import bn_distance


def test_batchnorm_distance_ignores_the_scale_of_a_layer() -> None:
    layers = np.random.default_rng(0).random((20, 10)) + 0.1
    distance = bn_distance(layers)
    slow = [sum(np.log(layer) for layer in row[1:7]) / 6 for row in layers]
    np.testing.assert_allclose(distance, slow, rtol=1e-5, atol=1e-6)
    scaled = bn_distance(layers * [7, 1, 1000, 1, 1, 1, 1, 7, 7, 7])
    np.testing.assert_allclose(scaled - distance, np.log(1000) / 6, rtol=1e-4)
    for num_layers in (1, 2, 3):
        assert np.isfinite(bn_distance(np.zeros((2, num_layers), np.float16))).all()
