"""Class names as files, and a CLIP that they turn into a zero-shot teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from distill.teachers.import_teacher import import_teacher, read_classes
from indexes.models.teacher import TeacherError, load_teacher

NAMES = ["cat", "dog", "ship"]


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(NAMES) + "\n")
    return path


def _refused(out: Path, weights: Path, classes: Path, **more: Any) -> str:
    builder = "open_clip:winnow-tiny-import"
    with pytest.raises(TeacherError) as caught:
        import_teacher(builder, weights, classes, out, **more)
    assert not out.exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat\ndog\n", ["cat", "dog"]),
        ("\ufeffcat \r\n dog\r\n\r\n", ["cat", "dog"]),
        ('["cat", "dog"]', ["cat", "dog"]),
        ("\u732b\n\u72ac", ["\u732b", "\u72ac"]),
    ],
)
def test_class_names(tmp_path: Path, text: str, names: list[str]) -> None:
    (tmp_path / "classes").write_text(text, encoding="utf-8")
    assert read_classes(tmp_path / "classes") == names


@pytest.mark.parametrize("content", [b"", b"[]", b"[1, 2]", b"cat\n\ndog", b"[", b"\xff\xfe\xfd"])
def test_class_names_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "classes").write_bytes(content)
    with pytest.raises(TeacherError, match="classes"):
        read_classes(tmp_path / "classes")


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


def test_a_clip_becomes_a_zero_shot_teacher(
    clip: tuple[Any, Path], classes: Path, tmp_path: Path
) -> None:
    import open_clip

    model, weights = clip
    prompts = ["a photo of a {}.", "art of {}, {{}}"]
    card = import_teacher(
        "open_clip:winnow-tiny-import", weights, classes, tmp_path / "out", prompts=prompts
    )
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
    _, features_BD, logits_BC = load_teacher(tmp_path / "out")(pixels)
    torch.testing.assert_close(features_BD, image_BD)
    torch.testing.assert_close(logits_BC, expected_BC, rtol=1e-4, atol=1e-4)


def test_a_clip_that_does_not_fit(clip: tuple[Any, Path], classes: Path, tmp_path: Path) -> None:
    model, weights = clip
    tower = {k: v for k, v in model.state_dict().items() if k.startswith("visual")}
    lone = tmp_path / "tower.safetensors"
    save_file(tower, lone)
    assert "whole CLIP model" in _refused(tmp_path / "out", lone, classes)
    assert "no {}" in _refused(tmp_path / "out", weights, classes, prompts=["a photo"])
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "cannot be read" in _refused(tmp_path / "out", weights, classes)
