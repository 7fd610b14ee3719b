"""Images in memory and streamed images give the same batches."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
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
    EpochSampler,
    split_heldout,
)
from distill.distributed import ProcessGroup
from indexes.images.decode import Geometry
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards
from tests.support import distillation

World = tuple[Shards, Teacher]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_streaming_gives_the_batches_of_memory(world: World, workers: int) -> None:
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
    for in_memory, streamed in zip(*batches, strict=True):
        assert torch.equal(in_memory, streamed)
        assert in_memory.shape == (20, 32, 32, 3)


@pytest.mark.slow
def test_decoding_processes_are_outside_the_process_group(world: World) -> None:
    """A signal to a process group does not reach the decoding processes: the training ends them."""
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
    groups = {os.getpgid(process.pid or 0) for process in multiprocessing.active_children()}
    assert groups
    assert os.getpgid(0) not in groups
    assert len(list(batches)) == 2


def test_all_processes_keep_images_in_memory_or_none(world: World) -> None:
    """The device of another process has less memory: its vote is in the sum."""

    class OtherVotes(ProcessGroup):
        def all_reduce(self, value: Tensor) -> Tensor:
            return value + 1

    shards, teacher = world
    rows = split_heldout(shards.columns["key_hash"]).train
    geometry = stored_geometry(teacher.geometry)
    dataset = ShardDataset([(shards, rows)])
    order = EpochSampler(len(rows), 20, 3)
    source = open_image_source(
        dataset, geometry, order, device="cpu", workers=0, group=OtherVotes(0, 2)
    )
    assert isinstance(source, Streaming)
    assert isinstance(open_image_source(dataset, geometry, order, device="cpu"), InMemory)


def test_decoding_keeps_the_order_of_rows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    shards, _ = world
    monkeypatch.setattr(loader, "CHUNK", 4)
    monkeypatch.setattr(loader, "TASK", 3)
    rows = np.array([5, 40, 2, 2, 59, 0, 33, 17, 8])
    images = decode_all(ShardDataset([(shards, rows)]), Geometry(32), "cpu")
    for position, row in enumerate(rows):
        wanted = decode_images([(distillation.draw_image(int(row)), "x")], Geometry(32))[0]
        assert np.array_equal(images[position].numpy(), wanted)


def test_a_damaged_image_is_named(world: World, tmp_path: Path) -> None:
    _, teacher = world
    images = [distillation.draw_image(number) for number in range(4)]
    images[2] = images[2][:50]
    shards = distillation.make_shards(tmp_path, teacher, 4, images=images)
    with pytest.raises(ValueError, match=r"key-2 cannot be decoded .*winnow verify"):
        decode_all(ShardDataset([(shards, np.arange(4))]), Geometry(32), "cpu")


def test_large_images_are_stored_with_a_margin() -> None:
    assert stored_geometry(Geometry(224, 0.875)) == Geometry(256, 1.0)
    assert stored_geometry(Geometry(32, 0.9, "bicubic")) == Geometry(32, 0.9, "bicubic")


def test_the_loader_gives_every_visit_its_view(world: World) -> None:
    shards, teacher = world
    rows = split_heldout(shards.columns["key_hash"]).train
    geometry = stored_geometry(teacher.geometry)
    order = EpochSampler(len(rows), 10, 0)
    stored = decode_all(ShardDataset([(shards, rows)]), geometry, "cpu")
    key_hash = shards.columns["key_hash"][rows]
    source = InMemory(stored, order)
    augmentation = augment.Augmentation(size=32, seed=0)
    loader = StepLoader(source, order, key_hash, augmentation, per_image=2, num_views=3)
    for step, views in enumerate(loader.steps(5, 8), 5):
        index, epoch = order.indices(step)
        assert np.array_equal(views.index, np.tile(index, 2))
        assert np.array_equal(views.visits, np.concatenate([2 * epoch, 2 * epoch + 1]))
        boxes = augment.draw_boxes(0, key_hash[views.index], views.visits % 3, 32)
        assert torch.equal(views.pixels, augment.crop_views(stored[views.index], boxes, 32, "pad"))
