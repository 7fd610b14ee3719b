"""Soft targets: the teacher's softmax at the temperature of distillation, from stored logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.embeddings import Block

Array = npt.NDArray[Any]
TEMPERATURE = 4.0  # the usual temperature of distillation


def soften(
    logits: Array, logsumexp: Array, num_classes: int, temperature: float
) -> tuple[Array, Array]:
    """Return the softmax of stored logits [N, K] at a temperature.

    logsumexp: [N], over all C classes. The result is p [N, K] of the stored classes, and the
    probability [N] of each class that is not stored. The C - K classes without stored logits share
    the rest of the probability at temperature 1 equally.

    Example:
        >>> p, other = soften(np.zeros((1, 2)), np.log([4.0]), num_classes=4, temperature=4.0)
        >>> p.tolist(), other.tolist()
        ([[0.25, 0.25]], [0.25])
    """
    rest = num_classes - logits.shape[1]
    stored = logits.astype(np.float64)
    powers = np.exp((stored - logsumexp[:, None]) / temperature)
    other = np.zeros(len(logits))
    if rest:
        left = np.maximum(1 - np.exp(stored - logsumexp[:, None]).sum(1), 1e-12)
        other = (left / rest) ** (1 / temperature)
    total = powers.sum(1) + rest * other
    return powers / total[:, None], other / total


@dataclass(frozen=True)
class SoftTargets:
    """The teacher's stored outputs for N images: logits float16 [N, K] and logsumexp [N].

    `classes` [N, K] are the classes of the logits, or None if all logits are stored.
    """

    logits: Array
    logsumexp: Array
    classes: Array | None

    @classmethod
    def of(cls, block: Block) -> SoftTargets:
        """Return the targets of a whole block, memory-mapped."""
        (logsumexp,) = block.columns("logsumexp")
        return cls(block.matrix("logits"), logsumexp, block.logit_classes)

    @classmethod
    def concatenate(cls, targets: Sequence[SoftTargets]) -> SoftTargets:
        """Return several sets of targets, joined in order."""
        logits, logsumexp, classes = (
            [getattr(part, field.name) for part in targets] for field in fields(cls)
        )
        return cls(
            np.concatenate(logits),
            np.concatenate(logsumexp),
            None if targets[0].classes is None else np.concatenate(classes),
        )

    def rows(self, local: Array | slice) -> SoftTargets:
        """Return the targets of the images at positions [M], or in a slice."""
        classes = None if self.classes is None else self.classes[local]
        return SoftTargets(self.logits[local], self.logsumexp[local], classes)

    def probabilities(self, num_classes: int) -> Array:
        """Return the softened softmax over all classes, float32 [N, C]."""
        p, other = soften(self.logits.astype(np.float32), self.logsumexp, num_classes, TEMPERATURE)
        if self.classes is None:
            return p.astype(np.float32)
        whole = np.repeat(other[:, None].astype(np.float32), num_classes, 1)
        np.put_along_axis(whole, self.classes.astype(np.int64), p.astype(np.float32), 1)
        return whole
