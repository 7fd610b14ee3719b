"""Sampling: the quotas, funnels and shards of a generator that is right half of the time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from indexes import artifact
from indexes.images.decode import Geometry, load_view, to_unit
from indexes.models.teacher import Teacher
from indexes.shards.reader import open_shards
from indexes.shards.verify import verify_shards
from pipeline.generation.sample import BLOCK, Keep, Tally, sample_blocks, write_synthetic_shards
from tests.support.corpora import encoded
from tests.support.generators import SIDE, color_teacher


class Half:
    """Draw the requested class in the first half of a block and another class in the second."""

    def __init__(self, teacher: Teacher) -> None:
        pixels = np.stack([load_view(encoded(n), Geometry(SIDE))[0] for n in range(60)])
        labels = teacher(to_unit(torch.from_numpy(pixels)))[2].argmax(1).numpy()
        self.image_of_class = torch.from_numpy(
            pixels[[np.flatnonzero(labels == label)[0] for label in range(3)]]
        )

    def __call__(self, classes: Tensor, random: torch.Generator) -> Tensor:
        late = torch.arange(len(classes)) >= (len(classes) + 1) // 2
        return self.image_of_class[(classes + late) % 3]


@pytest.mark.parametrize(("keep", "generated"), [("all", 300), ("agreeing", 596)])
def test_funnels_sum_to_their_inputs(tmp_path: Path, keep: Keep, generated: int) -> None:
    teacher = color_teacher(tmp_path / "teacher")
    tally = Tally.of(300, 3)
    blocks = sample_blocks(Half(teacher), teacher, tally, seed=0, keep=keep, device="cpu")
    teacher_entry = {"digest": teacher.card.digest, "input_size": SIDE}
    directory = tmp_path / "s"
    contents = write_synthetic_shards(
        blocks, tally, teacher, directory, plan_digest="p", side=SIDE, shard_samples=110
    )
    body = {"teacher": teacher_entry, "funnel": tally.funnel(), **tally.figures(), **contents}
    artifact.write_card(directory, "shards", body)
    assert verify_shards(tmp_path / "s") == 300
    shards = open_shards(tmp_path / "s")
    assert [file["num_samples"] for file in shards.card["files"]] == [110, 110, 80]
    assert shards.card["funnel"]["in"] == generated
    assert shards.card["funnel"]["dropped"].get("not_agreeing", 0) == generated - 300
    assert shards.card["agreeing_frac"] == pytest.approx(0.5, abs=0.01)
    assert np.bincount(shards.columns["requested"]).tolist() == [100] * 3
    agrees = shards.columns["label"] == shards.columns["requested"]
    assert agrees.all() == (keep == "agreeing")


def test_an_untrained_generator_is_an_error(tmp_path: Path) -> None:
    teacher = color_teacher(tmp_path / "teacher")
    generator = Half(teacher)
    generator.image_of_class = generator.image_of_class.roll(1, 0)
    tally = Tally.of(1, 3)
    blocks = sample_blocks(generator, teacher, tally, seed=0, keep="agreeing", device="cpu")
    with pytest.raises(ValueError, match=r"8 images were generated.*--keep all"):
        write_synthetic_shards(blocks, tally, teacher, tmp_path / "s", plan_digest="p", side=8)
    assert tally.funnel() == {
        "in": 8, "dropped": {"not_finite": 0, "not_agreeing": 8}, "kept": 0
    }  # fmt: skip


def test_classes_are_requested_evenly_at_all_times() -> None:
    tally = Tally.of(1000, 300)
    requested = np.zeros(300, int)
    while len(classes := tally.next_classes()):
        assert len(classes) <= BLOCK
        tally.kept += np.bincount(classes, minlength=300)
        requested = tally.kept
        assert requested.max() - requested.min() <= 2
    assert requested.sum() == 1000
    assert sorted(set(requested.tolist())) == [3, 4]
