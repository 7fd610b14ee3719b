"""Softened targets: for all classes, for some classes, in any order."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.soft_targets import TEMPERATURE, SoftTargets
from tests.support.pools import make_pool


def test_softened_targets_with_some_logits_stored(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    logits = generator.normal(size=(40, 7))
    order = np.argsort(-logits, 1)[:, :4]
    pool = make_pool(
        tmp_path,
        label=order[:, 0],
        log_odds=np.zeros(40),
        num_classes=7,
        features=generator.normal(size=(40, 7)),
        matrices={
            "logits": np.take_along_axis(logits, order, 1),
            "classes": order.astype(np.int32),
        },
        columns={"logsumexp": np.log(np.exp(logits).sum(1))},
    )
    (block,) = pool.blocks
    actual = SoftTargets.of(block).rows(np.array([1, 5, 30])).probabilities(7)
    np.testing.assert_allclose(actual.sum(1), 1, atol=2e-3)
    expected = np.exp(logits[[1, 5, 30]] / TEMPERATURE)
    expected /= expected.sum(1, keepdims=True)
    best = order[[1, 5, 30], :1]
    actual_best = np.take_along_axis(actual, best, 1)
    expected_best = np.take_along_axis(expected, best, 1)
    np.testing.assert_allclose(actual_best, expected_best, rtol=0.05)


def test_stored_logits_in_any_order_and_of_some_classes() -> None:
    draw = np.random.default_rng(4)
    logits = draw.normal(size=(6, 5)).astype(np.float16)
    logsumexp = np.log(np.exp(logits.astype(np.float64)).sum(1))
    targets = SoftTargets(logits, logsumexp, None)
    order = np.argsort(-logits.astype(np.float32), 1, kind="stable").astype(np.int32)
    ranked = SoftTargets(np.take_along_axis(logits, order, 1), logsumexp, order)
    np.testing.assert_allclose(ranked.probabilities(5), targets.probabilities(5), rtol=1e-5)
    rows = np.array([4, 1, 1])
    joined = SoftTargets.concatenate([ranked.rows(rows[:1]), ranked.rows(rows[1:])])
    np.testing.assert_allclose(joined.probabilities(5), targets.probabilities(5)[rows], rtol=1e-5)
