"""Who trains and in which order; resident and streamed give the same batches."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distill.data import augment, loader
from distill.data.dataset import ShardDataset
from distill.data.loader import (
    InMemory,
    StepLoader,
    Streaming,
    decode_all,
    decode_images,
    open_image_source,
    stored_geometry,
)
from distill.data.sampler import (
    MAX_HELDOUT,
    EpochSampler,
    MixedSampler,
    RankSampler,
    normalized_weights,
    split_heldout,
)
from distill.distributed import ProcessGroup
from indexes.images.decode import Geometry
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards
from tests.support import distillation

World = tuple[Shards, Teacher]


@given(st.integers(2, 5000), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_split_is_a_partition_by_key(num: int, seed: int) -> None:
    hashes = np.random.default_rng(seed).integers(0, 2**64, num, np.uint64)
    found = split_heldout(hashes)
    assert sorted([*found.train, *found.heldout]) == list(range(num))
    assert len(found.heldout) == min(max(round(0.02 * num), 1), MAX_HELDOUT)
    order = np.random.default_rng(1).permutation(num)
    again = split_heldout(hashes[order])
    assert set(hashes[order][again.heldout]) == set(hashes[found.heldout])


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
    index = np.concatenate([one for one, _ in seen])[: 3 * num]
    epoch = np.concatenate([one for _, one in seen])[: 3 * num]
    for one in range(3):
        assert sorted(index[epoch == one]) == list(range(num))
    later = EpochSampler(num, per_step, seed).indices(steps - 1)
    assert np.array_equal(later[0], seen[-1][0])


@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_processes_share_every_step(num: int, per_step: int, num_ranks: int) -> None:
    order = EpochSampler(num, per_step, 3)
    shares = [RankSampler(order, rank, num_ranks) for rank in range(num_ranks)]
    for step in (0, 1, 7):
        parts = [share.indices(step) for share in shares]
        for which, whole in enumerate(order.indices(step)):
            assert np.array_equal(np.concatenate([part[which] for part in parts]), whole)
        sizes = [len(index) for index, _ in parts]
        assert max(sizes) - min(sizes) <= 1


def test_order_depends_on_the_seed() -> None:
    first, second = (EpochSampler(50, 50, seed).indices(0)[0] for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_weights_have_mean_one() -> None:
    found = normalized_weights(np.array([0.0, 1.0, 5.0], np.float32))
    assert found.tolist() == pytest.approx([0, 0.5, 2.5])
    for bad in ([0.0, 0.0], [-1.0, 2.0], [np.nan, 1.0]):
        with pytest.raises(ValueError, match="weights"):
            normalized_weights(np.array(bad, np.float32))


@pytest.mark.parametrize("workers", [0, 1])
def test_streamed_is_resident(world: World, workers: int) -> None:
    shards, teacher = world
    rows = split_heldout(shards.columns["key_hash"]).train
    geometry = stored_geometry(teacher.geometry)
    order = EpochSampler(len(rows), 20, 3)
    batches = []
    for budget in (None, 0):
        source = open_image_source(
            ShardDataset([(shards, rows)]), geometry, order,
            device="cpu", workers=workers, budget_bytes=budget,
        )  # fmt: skip
        batches.append(list(source.batches(2, 6)))
    assert len(batches[0]) == 4
    for resident, streamed in zip(*batches, strict=True):
        assert torch.equal(resident, streamed)
        assert resident.shape == (20, 32, 32, 3)


def test_what_ends_a_job_leaves_its_decoding_processes(world: World) -> None:
    """Who signals a whole process group does not reach them: the training ends them itself."""
    shards, teacher = world
    rows = split_heldout(shards.columns["key_hash"]).train
    source = open_image_source(
        ShardDataset([(shards, rows)]),
        stored_geometry(teacher.geometry),
        EpochSampler(len(rows), 20, 3),
        device="cpu", workers=1, budget_bytes=0,
    )  # fmt: skip
    batches = source.batches(0, 3)
    next(batches)
    groups = {os.getpgid(one.pid or 0) for one in multiprocessing.active_children()}
    assert groups
    assert os.getpgid(0) not in groups
    assert len(list(batches)) == 2


def test_of_several_processes_all_keep_images_or_none(world: World) -> None:
    """Another one's device is fuller: its word is in the sum."""

    class Told(ProcessGroup):
        def all_reduce(self, value: Tensor) -> Tensor:
            return value + 1

    shards, teacher = world
    rows = split_heldout(shards.columns["key_hash"]).train
    geometry = stored_geometry(teacher.geometry)
    stock = ShardDataset([(shards, rows)])
    order = EpochSampler(len(rows), 20, 3)
    source = open_image_source(stock, geometry, order, device="cpu", workers=0, group=Told(0, 2))
    assert isinstance(source, Streaming)
    assert isinstance(open_image_source(stock, geometry, order, device="cpu"), InMemory)


def test_decoding_keeps_the_order_of_rows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    shards, _ = world
    monkeypatch.setattr(loader, "CHUNK", 4)
    monkeypatch.setattr(loader, "TASK", 3)
    rows = np.array([5, 40, 2, 2, 59, 0, 33, 17, 8])
    found = decode_all(ShardDataset([(shards, rows)]), Geometry(32), "cpu")
    for place, row in enumerate(rows):
        wanted = decode_images([(distillation.draw_image(int(row)), "x")], Geometry(32))[0]
        assert np.array_equal(found[place].numpy(), wanted)


def test_a_damaged_image_is_named(world: World, tmp_path: Path) -> None:
    _, teacher = world
    images = [distillation.draw_image(number) for number in range(4)]
    images[2] = images[2][:50]
    shards = distillation.make_shards(tmp_path, teacher, 4, images=images)
    with pytest.raises(ValueError, match=r"key-2 cannot be decoded .*winnow verify"):
        decode_all(ShardDataset([(shards, np.arange(4))]), Geometry(32), "cpu")


def test_large_images_are_stored_wider() -> None:
    assert stored_geometry(Geometry(224, 0.875)) == Geometry(256, 1.0)
    assert stored_geometry(Geometry(32, 0.9, "bicubic")) == Geometry(32, 0.9, "bicubic")


def test_feed_shows_each_visit_its_view(world: World) -> None:
    shards, teacher = world
    rows = split_heldout(shards.columns["key_hash"]).train
    geometry = stored_geometry(teacher.geometry)
    order = EpochSampler(len(rows), 10, 0)
    stored = decode_all(ShardDataset([(shards, rows)]), geometry, "cpu")
    key_hash = shards.columns["key_hash"][rows]
    source = InMemory(stored, order)
    augmentation = augment.Augmentation(size=32, seed=0)
    feed = StepLoader(source, order, key_hash, augmentation, per_image=2, num_views=3)
    for step, seen in enumerate(feed.steps(5, 8), 5):
        index, epoch = order.indices(step)
        assert np.array_equal(seen.index, np.tile(index, 2))
        assert np.array_equal(seen.visits, np.concatenate([2 * epoch, 2 * epoch + 1]))
        boxes = augment.draw_boxes(0, key_hash[seen.index], seen.visits % 3, 32)
        assert torch.equal(seen.pixels, augment.crop_views(stored[seen.index], boxes, 32))


def test_mixed_steps_have_so_many_of_each_set() -> None:
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
        # Each half, as the share of a process or what is chosen of a batch, holds both sets.
        assert [is_second[:4].sum(), is_second[4:].sum()] == [1, 1]
    # The smaller set comes round again and again, the larger one once.
    counts = np.bincount(np.concatenate([index for index, _ in seen]), minlength=60)
    assert counts[:10].tolist() == [15] * 10
    assert counts[10:].tolist() == [1] * 50


def test_stock_reads_several_sets_as_one(world: World, tmp_path: Path) -> None:
    shards, teacher = world
    images = [distillation.draw_image(number) for number in range(100, 104)]
    other = distillation.make_shards(
        tmp_path, teacher, 4, images=images, weights=[1.0, 1.0, 3.0, 3.0]
    )
    stock = ShardDataset([(shards, np.array([7, 3])), (other, np.array([2, 0, 1]))])
    assert len(stock) == 5
    wanted = [
        distillation.draw_image(7),
        distillation.draw_image(3),
        images[2],
        images[0],
        images[1],
    ]
    assert [stock.read(index)[0] for index in range(5)] == wanted
    assert stock.read(1)[1].endswith(": key-3")
    assert stock.read(2)[1] == f"{tmp_path}: key-2"
    assert stock.weights.tolist() == pytest.approx([1, 1, 1.8, 0.6, 0.6])
    hashes = [shards.columns["key_hash"][[7, 3]], other.columns["key_hash"][[2, 0, 1]]]
    assert np.array_equal(stock.key_hash, np.concatenate(hashes))
