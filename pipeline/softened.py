"""Softened: the teacher's softmax at the temperature of distillation, from its stored logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.embeddings import Block

Array = npt.NDArray[Any]
TEMPERATURE = 4.0  # what students are usually distilled at


def soften(
    logits: Array, logsumexp: Array, num_classes: int, temperature: float
) -> tuple[Array, Array]:
    """Softmax of stored logits [n, K] at a temperature: p [n, K], and of each class not stored [n].

    The C - K classes whose logits are not stored count as equals that share the rest of the
    probability at temperature 1.
    """
    rest = num_classes - logits.shape[1]
    shown = logits.astype(np.float64)
    powers = np.exp((shown - logsumexp[:, None]) / temperature)
    other = np.zeros(len(logits))
    if rest:
        left = np.maximum(1 - np.exp(shown - logsumexp[:, None]).sum(1), 1e-12)
        other = (left / rest) ** (1 / temperature)
    total = powers.sum(1) + rest * other
    return powers / total[:, None], other / total


def answers(block: Block, local: Array, num_classes: int) -> Array:
    """The softened softmax of some rows of a block, over all classes, float32 [n, C]."""
    (logsumexp,) = block.columns("logsumexp")
    logits = block.matrix("logits")[local].astype(np.float32)
    p, other = soften(logits, logsumexp[local], num_classes, TEMPERATURE)
    stored = block.logit_classes
    if stored is None:
        return p.astype(np.float32)
    whole = np.repeat(other[:, None].astype(np.float32), num_classes, 1)
    np.put_along_axis(whole, stored[local].astype(np.int64), p.astype(np.float32), 1)
    return whole
