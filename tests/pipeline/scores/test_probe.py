"""Probes train on the most confident images, and mark the images that they did not learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from indexes.images.thumbnails import thumb
from pipeline.pool import Pool
from pipeline.scores.probe import ProbeConfig, most_confident, proxy_kl
from tests.support.pools import make_pool

Array = npt.NDArray[Any]
SHORT = ProbeConfig(min_steps=30, num_probes=2)
"""Short probes: plain colors are learned sooner than photographs."""
NUM = 1500
ODD = slice(0, 60)


def unlearned(pool: Pool) -> Array:
    return np.concatenate([values for _, values in proxy_kl(pool, config=SHORT)])


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Make noisy squares of three colors; for some, the teacher predicts another class."""
    draw = np.random.default_rng(0)
    label = np.arange(NUM) % 3
    drawn_class = label.copy()
    drawn_class[ODD] = (drawn_class[ODD] + 1) % 3
    confidence = draw.uniform(3, 9, NUM)
    confidence[ODD] = 2
    logits = np.where(np.arange(3) == label[:, None], confidence[:, None], 0.0)
    pixels = draw.integers(0, 90, (NUM, 20, 20, 3))
    pixels[np.arange(NUM), :, :, drawn_class] += 130
    color_pool = make_pool(
        tmp_path_factory.mktemp("pool"),
        label=label,
        log_odds=confidence,
        blocks=(700, 800),
        matrices={
            "logits": logits,
            "thumb": np.stack([thumb(image.astype(np.uint8)) for image in pixels]),
        },
        columns={"logsumexp": np.log(np.exp(logits).sum(1))},
    )
    color_pool.scratch.mkdir(exist_ok=True)
    return color_pool


@pytest.mark.slow
def test_images_that_the_probes_did_not_learn_stand_out(pool: Pool) -> None:
    divergence = unlearned(pool)
    assert divergence.shape == (NUM,)
    assert divergence.dtype == np.float32
    assert (divergence >= -1e-6).all()
    assert np.median(divergence[ODD]) > 4 * np.median(divergence[60:])


@pytest.mark.slow
def test_probes_are_reproducible_and_keep_the_global_random_state(pool: Pool) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    np.testing.assert_array_equal(unlearned(pool), unlearned(pool))
    assert torch.equal(before, torch.random.get_rng_state())


def test_probes_train_on_the_most_confident_candidates_of_each_class(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    label, confidence = draw.integers(0, 3, 600), draw.normal(size=600)
    reason = (np.arange(600) % 4 == 0).astype(np.uint8)
    small_pool = make_pool(tmp_path, label=label, log_odds=confidence, reason=reason)
    small_pool.scratch.mkdir()
    rows = most_confident(small_pool)
    assert len(rows) == 45
    assert (reason[rows] == 0).all()
    assert list(proxy_kl(small_pool)) == []  # There are too few rows for a batch.
    for number in range(3):
        members = np.flatnonzero((label == number) & (reason == 0))
        best = members[np.argsort(-confidence[members])][:15]
        assert set(best) == set(rows[label[rows] == number])
