"""Plain distillation: the student matches the teacher's softened logits, nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from distill.losses.kd import kd
from distill.method import Batch, Method, weighted_mean


@dataclass(frozen=True, kw_only=True)
class Config:
    """The knobs of kd."""

    temperature: float = 4.0
    """T of both softmaxes. SOURCE (DFND's and most releases' value)."""


class KD(Method):
    """L = T^2 KL(softmax(t / T) || softmax(s / T)). SOURCE."""

    config: Config

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """{"kd"}."""
        _, _, logits = self.student(batch.pixels)
        values = kd(logits, batch.logits, self.config.temperature)
        return {"kd": weighted_mean(values, batch.weights)}
