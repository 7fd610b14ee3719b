"""Plain distillation: the student matches the teacher's softened logits and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from distill.losses.kd import kd
from distill.method import Batch, Method, weighted_mean


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of kd."""

    temperature: float = 4.0
    """Temperature T of both softmaxes. SOURCE (the value of DFND and most releases)."""


class KD(Method):
    """L = T^2 KL(softmax(t / T) || softmax(s / T)). SOURCE."""

    config: Config

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The scalar term `kd` of a batch. SOURCE."""
        _, _, logits = self.student(batch.pixels)
        values = kd(logits, batch.logits, self.config.temperature)
        return {"kd": weighted_mean(values, batch.weights)}
