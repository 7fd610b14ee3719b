"""An optional open_clip image tower, embedded in the same pass as the teacher."""

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
    """`ViT-B-32:/path/weights.safetensors` -> unit vectors float32 [b, E] of pixels in [0, 1]."""

    def __init__(self, spec: str, device: str) -> None:
        import open_clip

        name, separator, weights = spec.partition(":")
        if not separator or not Path(weights).is_file():
            raise ValueError(
                f"--tower {spec}: write MODEL:FILE, such as ViT-B-32:/models/vit_b_32.safetensors "
                "(an open_clip model name and a local weights file)"
            )
        if name not in open_clip.list_models():
            known = ", ".join(open_clip.list_models()[:8])
            raise ValueError(f"--tower {spec}: open_clip has no model {name!r}; such as {known}")
        self.name, self.device, self.weights = name, device, weights
        self.digest = artifact.digest([name, artifact.sha256(weights)])
        pure = torch.device(device).type == "cpu" and devices.has_bf16(device)
        # On CPUs with AMX autocast makes a ViT slower than fp32; pure bf16 weights make it faster.
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
        """pixels [b, 3, S, S] in [0, 1] -> unit vectors float32 [b, E]."""
        with devices.autocast(self.device, enabled=self.dtype == torch.float32):
            vectors = self.visual(((pixels - self.mean) / self.std).to(self.dtype))
        return torch.nn.functional.normalize(vectors.float(), dim=1)

    def encode_names(self, names: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors [C, E] of class names by the text encoder, which is read anew for it."""
        # Not str.format: a class name with braces stays what it is.
        prompts = [PROMPT.replace("{}", name.replace("_", " ")) for name in names]
        return encode_texts(self.name, self.weights, prompts)
