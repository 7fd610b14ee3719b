"""Shards are read as they were written: as arrays, as bytes and as one table."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from indexes.artifact import ArtifactError
from indexes.shards.reader import open_shards
from indexes.shards.verify import verify_shards
from tests.support.shards import CLASSES, write_shards


@pytest.mark.parametrize("top", [None, 2])
def test_shards_survive_a_round_trip(tmp_path: Path, top: int | None) -> None:
    write_shards(tmp_path, top=top)
    shards = pickle.loads(pickle.dumps(open_shards(tmp_path)))
    assert len(shards) == 5
    assert shards.keys.tolist()[3] == "deep.dir/1-0"
    assert shards.read(2) == bytes([0, 2]) * 101
    assert shards.read(4) == bytes([1, 1]) * 51
    assert shards.sources.tolist()[:2] == ["part-0.tar", "part-1.tar"]
    assert shards.columns["label"].tolist() == [0, 1, 2, 0, 1]
    assert shards.logits.shape == (5, top or 3)
    assert shards.logits.dtype == np.float16
    assert (shards.logit_classes is None) == (top is None)
    assert shards.card["class_histogram"] == [2, 2, 1]
    assert shards.classes == CLASSES
    assert verify_shards(tmp_path) == 5


def test_shards_of_another_teacher_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path)
    assert len(open_shards(tmp_path, teacher_digest="t" * 64)) == 5
    with pytest.raises(ArtifactError, match="labeled by another teacher"):
        open_shards(tmp_path, teacher_digest="u" * 64)


def test_all_side_cars_form_one_table(tmp_path: Path) -> None:
    write_shards(tmp_path)
    shards = open_shards(tmp_path)
    table = shards.to_pandas()
    assert table.columns[:5].tolist() == ["key", "label", "class", "weight", "source"]
    assert table.key.tolist() == shards.keys.tolist()
    assert table["class"].tolist() == [CLASSES[label] for label in table.label]
    assert table.source.tolist() == shards.sources.tolist()
    for name, column in shards.columns.items():
        np.testing.assert_array_equal(table[name], column)
    assert shards.funnel == {"in": 8, "dropped": {"corrupt": 3}, "kept": 5}
    assert shards.certificate == {}
