"""Text embeddings of an open_clip model, in the same space as those of its image tower."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def encode_texts(model_name: str, weights: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return unit vectors float32 [n, E] of n texts, by an open_clip model and its weights file.

    Raises ValueError if the file cannot be read or holds no text tower.
    """
    import open_clip
    import torch

    try:
        model = open_clip.create_model(model_name, pretrained=weights, device="cpu").eval()
        tokenizer = open_clip.get_tokenizer(model_name)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
        raise ValueError(
            f"--tower {model_name}: the text encoder in {weights} cannot be read ({reason}): name "
            "the weights of the whole CLIP model, or leave out --tower"
        ) from error
    with torch.no_grad():
        batches = [
            torch.nn.functional.normalize(
                model.encode_text(tokenizer(texts[start : start + 256])), dim=1
            )
            for start in range(0, len(texts), 256)
        ]
        vectors: npt.NDArray[np.float32] = torch.cat(batches).float().numpy()
    return vectors
