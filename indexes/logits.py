"""How many of a teacher's logits are stored per image, and in which precision.

Embeddings and shards store all logits up to FULL_LOGITS classes, and the STORED_LOGITS largest
beyond that. They hold one view per image, which scores and every consumer of the shards read.
Cached targets of a distillation follow another policy, `top_logits` of the recipe: they hold many
views per image, each with the log-sum of the logits that are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

FULL_LOGITS = 128
STORED_LOGITS = 50
LARGEST_HALF = 65504.0


def to_half(values: Tensor) -> Tensor:
    """Convert a tensor of any shape, such as logits [B, C], to float16, clamped to its range.

    Example:
        >>> import torch
        >>> to_half(torch.tensor([1.0, 1e6]))
        tensor([1.0000e+00, 6.5504e+04], dtype=torch.float16)
    """
    return values.clamp(-LARGEST_HALF, LARGEST_HALF).half()
