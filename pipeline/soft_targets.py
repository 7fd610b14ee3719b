"""The teacher's softmax at the temperature of distillation, from its stored logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
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
    """The teacher's stored outputs for n images: logits float16 [n, K], logsumexp [n].

    `classes` [n, K] are the classes of the logits, or None where all are stored.
    """

    logits: Array
    logsumexp: Array
    classes: Array | None

    @classmethod
    def of(cls, block: Block) -> SoftTargets:
        """Those of a whole block, memory-mapped."""
        (logsumexp,) = block.columns("logsumexp")
        return cls(block.matrix("logits"), logsumexp, block.logit_classes)

    @classmethod
    def concatenate(cls, targets: Sequence[SoftTargets]) -> SoftTargets:
        """One after another."""
        logits, logsumexp, classes = (
            [getattr(part, field.name) for part in targets] for field in fields(cls)
        )
        return cls(
            np.concatenate(logits),
            np.concatenate(logsumexp),
            None if targets[0].classes is None else np.concatenate(classes),
        )

    def rows(self, local: Array | slice) -> SoftTargets:
        """Those of some of the images."""
        classes = None if self.classes is None else self.classes[local]
        return SoftTargets(self.logits[local], self.logsumexp[local], classes)

    def probabilities(self, num_classes: int) -> Array:
        """The softened softmax over all classes, float32 [n, C]."""
        p, other = soften(self.logits.astype(np.float32), self.logsumexp, num_classes, TEMPERATURE)
        if self.classes is None:
            return p.astype(np.float32)
        whole = np.repeat(other[:, None].astype(np.float32), num_classes, 1)
        np.put_along_axis(whole, self.classes.astype(np.int64), p.astype(np.float32), 1)
        return whole
