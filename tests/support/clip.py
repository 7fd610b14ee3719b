"""A CLIP with a few thousand random weights, to test towers and zero-shot teachers."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

TINY_CLIP = "winnow-tiny-clip"
"""The name of the configuration in open_clip."""


def register_clip() -> str:
    """Register the configuration with open_clip and return its name."""
    import open_clip

    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    if TINY_CLIP not in open_clip.list_models():
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / f"{TINY_CLIP}.json"
            path.write_text(json.dumps(config))
            open_clip.add_model_config(path)
    return TINY_CLIP


def make_clip(directory: Path) -> tuple[Any, Path]:
    """Make a model of random weights; return it and the file of its weights in `directory`."""
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model(register_clip(), load_weights=False).eval()
    save_file(model.state_dict(), directory / "clip.safetensors")
    return model, directory / "clip.safetensors"
