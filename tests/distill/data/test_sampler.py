"""The rows for training, their weights and their order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.sampler import (
    MAX_HELDOUT,
    EpochSampler,
    MixedSampler,
    RankSampler,
    normalized_weights,
    split_heldout,
)


@given(st.integers(2, 5000), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_split_is_a_partition_by_key(num: int, seed: int) -> None:
    hashes = np.random.default_rng(seed).integers(0, 2**64, num, np.uint64)
    split = split_heldout(hashes)
    assert sorted([*split.train, *split.heldout]) == list(range(num))
    assert len(split.heldout) == min(max(round(0.02 * num), 1), MAX_HELDOUT)
    order = np.random.default_rng(1).permutation(num)
    again = split_heldout(hashes[order])
    assert set(hashes[order][again.heldout]) == set(hashes[split.heldout])


def test_split_of_a_large_set_is_capped() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 150_000, np.uint64)
    assert len(split_heldout(hashes).heldout) == MAX_HELDOUT


def test_one_image_is_too_few() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        split_heldout(np.zeros(1, np.uint64))


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_every_epoch_visits_each_image_once(num: int, per_step: int, seed: int) -> None:
    order = EpochSampler(num, per_step, seed)
    steps = -(-3 * num // per_step)
    seen = [order.indices(step) for step in range(steps)]
    assert all(len(index) == per_step for index, _ in seen)
    index = np.concatenate([rows for rows, _ in seen])[: 3 * num]
    epoch = np.concatenate([epochs for _, epochs in seen])[: 3 * num]
    for number in range(3):
        assert sorted(index[epoch == number]) == list(range(num))
    later = EpochSampler(num, per_step, seed).indices(steps - 1)
    assert np.array_equal(later[0], seen[-1][0])


@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_processes_share_every_step(num: int, per_step: int, num_ranks: int) -> None:
    order = EpochSampler(num, per_step, 3)
    shares = [RankSampler(order, rank, num_ranks) for rank in range(num_ranks)]
    for step in (0, 1, 7):
        parts = [share.indices(step) for share in shares]
        for field, expected in enumerate(order.indices(step)):
            assert np.array_equal(np.concatenate([part[field] for part in parts]), expected)
        sizes = [len(index) for index, _ in parts]
        assert max(sizes) - min(sizes) <= 1


def test_the_order_depends_on_the_seed() -> None:
    first, second = (EpochSampler(50, 50, seed).indices(0)[0] for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_weights_have_mean_one() -> None:
    weights = normalized_weights(np.array([0.0, 1.0, 5.0], np.float32))
    assert weights.tolist() == pytest.approx([0, 0.5, 2.5])
    for bad in ([0.0, 0.0], [-1.0, 2.0], [np.nan, 1.0]):
        with pytest.raises(ValueError, match="weights"):
            normalized_weights(np.array(bad, np.float32))


def test_mixed_steps_have_the_stated_share_of_each_set() -> None:
    first, second = EpochSampler(10, 6, 0), EpochSampler(50, 2, 1)
    mixed = MixedSampler(first, second)
    assert mixed.per_step == 8
    seen = [mixed.indices(step) for step in range(25)]
    for step, (index, epoch) in enumerate(seen):
        is_second = index >= 10
        assert np.array_equal(index[~is_second], first.indices(step)[0])
        assert np.array_equal(index[is_second] - 10, second.indices(step)[0])
        assert np.array_equal(epoch[~is_second], first.indices(step)[1])
        assert np.array_equal(epoch[is_second], second.indices(step)[1])
        # Each half (the share of a process or a selection of the batch) contains both sets.
        assert [is_second[:4].sum(), is_second[4:].sum()] == [1, 1]
    # The smaller set is repeated, the larger set comes once.
    counts = np.bincount(np.concatenate([index for index, _ in seen]), minlength=60)
    assert counts[:10].tolist() == [15] * 10
    assert counts[10:].tolist() == [1] * 50
