"""A CLIP model that class names turn into a zero-shot teacher."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from distill.teachers.config import ImportTeacherConfig
from distill.teachers.import_teacher import import_teacher
from indexes.models.teacher import TeacherError

NAMES = ["cat", "dog", "ship"]


def config_of(out: Path, weights: Path, prompts: Sequence[str] = ()) -> ImportTeacherConfig:
    return ImportTeacherConfig(
        builder="open_clip:winnow-tiny-import",
        weights=weights,
        classes=NAMES,
        out=out,
        prompts=prompts,
    )


@pytest.fixture
def clip(tmp_path: Path) -> tuple[Any, Path]:
    """A tiny CLIP of random weights and its file."""
    import open_clip

    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 32,
            "head_width": 16,
            "patch_size": 8,
        },
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 49408,
            "width": 16,
            "heads": 1,
            "layers": 1,
        },
    }
    (tmp_path / "winnow-tiny-import.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "winnow-tiny-import.json")
    torch.manual_seed(0)
    model = open_clip.create_model("winnow-tiny-import", load_weights=False).eval()
    save_file(model.state_dict(), tmp_path / "clip.safetensors")
    return model, tmp_path / "clip.safetensors"


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
    tokenizer = open_clip.get_tokenizer("winnow-tiny-import")
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


def test_a_clip_that_does_not_fit(clip: tuple[Any, Path], tmp_path: Path) -> None:
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
