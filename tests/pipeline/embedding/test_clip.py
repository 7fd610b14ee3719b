"""An open_clip tower next to the teacher: its embeddings of images and of class names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indexes.shards.reader import open_shards
from pipeline.embedding.clip import PROMPT, ClipTower
from tests.support import corpora
from tests.support.clip import TINY_CLIP, make_clip


@pytest.fixture
def clip(tmp_path: Path) -> tuple[Any, str]:
    """Make a CLIP with a few thousand weights; return it and the spec of its tower."""
    model, weights = make_clip(tmp_path)
    return model, f"{TINY_CLIP}:{weights}"


def test_names_are_embedded_by_the_text_encoder(clip: tuple[Any, str]) -> None:
    import open_clip

    model, spec = clip
    names = ["aircraft_carrier", "great {white} shark", "red"]
    tokenizer = open_clip.get_tokenizer(TINY_CLIP)
    texts = [PROMPT.replace("{}", name.replace("_", " ")) for name in names]
    with torch.no_grad():
        expected = model.encode_text(tokenizer(texts), normalize=True).numpy()
    vectors = ClipTower(spec, "cpu").encode_names(names)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_a_tower_gives_the_class_name_column(clip: tuple[Any, str], tmp_path: Path) -> None:
    corpora.good_tar(tmp_path / "c.tar", 12)
    runs = tmp_path / "runs"
    flags = ["-n", "6", "--tower", clip[1], "--score-set", "class_name=1"]
    result = corpora.select(tmp_path / "c.tar", runs, *flags)
    assert result.exit_code == 0, result.output
    similarity = open_shards(corpora.shards_of(runs)).columns["class_name"]
    assert len(similarity) == 6
    assert np.abs(similarity).max() <= 1 + 1e-3
    result = corpora.select(tmp_path / "c.tar", runs, "-n", "6", "--score-set", "class_name=1")
    assert result.exit_code == 1
    assert "only with --tower" in result.output
