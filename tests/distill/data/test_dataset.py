"""Several shard sets form one dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distill.data.dataset import ShardDataset
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards
from tests.support import distillation

World = tuple[Shards, Teacher]


def test_a_dataset_joins_several_shard_sets(world: World, tmp_path: Path) -> None:
    shards, teacher = world
    images = [distillation.draw_image(number) for number in range(100, 104)]
    other = distillation.make_shards(
        tmp_path, teacher, 4, images=images, weights=[1.0, 1.0, 3.0, 3.0]
    )
    dataset = ShardDataset([(shards, np.array([7, 3])), (other, np.array([2, 0, 1]))])
    assert len(dataset) == 5
    wanted = [
        distillation.draw_image(7),
        distillation.draw_image(3),
        images[2],
        images[0],
        images[1],
    ]
    assert [dataset.read(index)[0] for index in range(5)] == wanted
    assert dataset.read(1)[1].endswith(": key-3")
    assert dataset.read(2)[1] == f"{tmp_path}: key-2"
    assert dataset.weights.tolist() == pytest.approx([1, 1, 1.8, 0.6, 0.6])
    hashes = [shards.columns["key_hash"][[7, 3]], other.columns["key_hash"][[2, 0, 1]]]
    assert np.array_equal(dataset.key_hash, np.concatenate(hashes))
