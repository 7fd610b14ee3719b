"""Class names turn a CLIP model into a zero-shot teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from distill.teachers.config import ImportTeacherConfig
from distill.teachers.import_teacher import import_teacher
from indexes.models.teacher import TeacherError
from tests.support.clip import TINY_CLIP, make_clip

NAMES = ["cat", "dog", "ship"]


def config_of(out: Path, weights: Path, prompts: Sequence[str] = ()) -> ImportTeacherConfig:
    return ImportTeacherConfig(
        builder=f"open_clip:{TINY_CLIP}",
        weights=weights,
        classes=NAMES,
        out=out,
        prompts=prompts,
    )


@pytest.fixture
def clip(tmp_path: Path) -> tuple[Any, Path]:
    """Make a tiny CLIP of random weights and its file."""
    return make_clip(tmp_path)


def test_a_clip_becomes_a_zero_shot_teacher(clip: tuple[Any, Path], tmp_path: Path) -> None:
    import open_clip

    model, weights = clip
    prompts = ["a photo of a {}.", "art of {}, {{}}"]
    teacher = import_teacher(config_of(tmp_path / "out", weights, prompts=prompts))
    card = teacher.card
    assert (card.mean, card.std) == (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    assert (card.input_size, card.interpolation) == (32, "bicubic")
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (card.mean, card.std))
    tokenizer = open_clip.get_tokenizer(TINY_CLIP)
    with torch.no_grad():
        image_BD = model.encode_image((pixels - mean) / std, normalize=True)
        rows = []
        for name in NAMES:
            texts = [prompt.replace("{}", name) for prompt in prompts]
            unit = model.encode_text(tokenizer(texts), normalize=True).mean(0)
            rows.append(unit / unit.norm())
        expected_BC = model.logit_scale.exp() * image_BD @ torch.stack(rows).T
    _, features_BD, logits_BC = teacher(pixels)
    torch.testing.assert_close(features_BD, image_BD)
    torch.testing.assert_close(logits_BC, expected_BC, rtol=1e-4, atol=1e-4)


def test_a_clip_that_does_not_fit_is_refused(clip: tuple[Any, Path], tmp_path: Path) -> None:
    model, weights = clip
    tower = {k: v for k, v in model.state_dict().items() if k.startswith("visual")}
    lone, out = tmp_path / "tower.safetensors", tmp_path / "out"
    save_file(tower, lone)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:5000])
    for config, message in (
        (config_of(out, lone), "whole CLIP model"),
        (config_of(out, weights, prompts=["a photo"]), r"has no \{\}"),
        (config_of(out, cut), "cannot be read"),
    ):
        with pytest.raises(TeacherError, match=message):
            import_teacher(config)
    assert not out.exists()
