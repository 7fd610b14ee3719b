"""How many of a teacher's logits are kept of an image, and in which precision.

Embeddings and shards keep all of them up to FULL_LOGITS classes and the STORED_LOGITS largest
above: one view an image, read by scores and by any consumer of the shards. The cached targets of a
distillation are another policy, `top_logits` of its recipe: many views an image, each with the
log-sum of the logits that are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

FULL_LOGITS = 128
STORED_LOGITS = 50
LARGEST_HALF = 65504.0


def to_half(values: Tensor) -> Tensor:
    """float16, clamped to its range: what is too large becomes the largest number there is."""
    return values.clamp(-LARGEST_HALF, LARGEST_HALF).half()
