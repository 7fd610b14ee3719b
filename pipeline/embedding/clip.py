"""An optional open_clip image tower, which embeds images in the same pass as the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from indexes import artifact, devices
from indexes.images.decode import Geometry
from indexes.models.text import encode_texts

PROMPT = "a photo of a {}."


class ClipTower:
    """The image tower of an open_clip model with local weights.

    `spec` is MODEL:FILE, such as `ViT-B-32:/models/vit_b_32.safetensors`. A call maps pixels to
    unit vectors float32 [B, E]. Raises ValueError for a file that does not exist or a model name
    that open_clip does not know.
    """

    def __init__(self, spec: str, device: str) -> None:
        import open_clip

        name, separator, weights = spec.partition(":")
        if not separator or not Path(weights).is_file():
            raise ValueError(
                f"--tower {spec}: expected MODEL:FILE, an open_clip model name and an existing "
                "local weights file, such as ViT-B-32:/models/vit_b_32.safetensors"
            )
        if name not in open_clip.list_models():
            known = ", ".join(open_clip.list_models()[:8])
            raise ValueError(
                f"--tower {spec}: open_clip has no model {name!r}; it has {known} and others"
            )
        self.name, self.device, self.weights = name, device, weights
        self.digest = artifact.digest([name, artifact.sha256(weights)])
        pure = torch.device(device).type == "cpu" and devices.has_bf16(device)
        # On CPUs with AMX, autocast makes a ViT slower than fp32, but pure bf16 weights are faster.
        self.dtype = torch.bfloat16 if pure else torch.float32
        model = open_clip.create_model(
            name, pretrained=weights, precision="pure_bf16" if pure else "fp32", device=device
        )
        self.visual = model.visual.eval().requires_grad_(False)
        size = self.visual.image_size
        self.geometry = Geometry(size[0] if isinstance(size, tuple) else size, 1.0, "bicubic")
        mean: Sequence[float] = self.visual.image_mean or open_clip.OPENAI_DATASET_MEAN
        std: Sequence[float] = self.visual.image_std or open_clip.OPENAI_DATASET_STD
        self.mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(std, device=device).view(1, 3, 1, 1)

    @torch.no_grad()
    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map pixels [B, 3, S, S] in [0, 1] to unit vectors float32 [B, E]."""
        with devices.autocast(self.device, enabled=self.dtype == torch.float32):
            vectors = self.visual(((pixels - self.mean) / self.std).to(self.dtype))
        return torch.nn.functional.normalize(vectors.float(), dim=1)

    def encode_names(self, names: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return unit vectors [C, E] of class names. Each call loads the text encoder anew."""
        # Not str.format, so that braces in a class name stay as they are.
        prompts = [PROMPT.replace("{}", name.replace("_", " ")) for name in names]
        return encode_texts(self.name, self.weights, prompts)
