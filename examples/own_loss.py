"""A distillation method of your own in one file: the squared distance of centered logits.

Command: winnow distill --method examples/own_loss.py --set scale=2 --student resnet8x4
From Python: python examples/own_loss.py runs/shards/NAME
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from distill import Batch, DistillConfig, Method, distill, weighted_mean


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of this method: `--set scale=2`, or settings={"scale": 2.0}."""

    scale: float = 1.0
    """Weight of the loss."""


class CenteredLogits(Method):
    """L = scale mean_c ((s - mean s) - (t - mean t))_c^2 for student logits s, teacher logits t."""

    config: Config

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return the term `centered`. The loop minimizes the sum of all terms and logs each one."""
        _, _, logits_BC = self.student(batch.pixels)
        difference_BC = logits_BC - batch.logits
        difference_BC = difference_BC - difference_BC.mean(1, keepdim=True)
        distance_B = difference_BC.square().mean(1)
        return {"centered": self.config.scale * weighted_mean(distance_B, batch.weights)}


if __name__ == "__main__":
    for run in distill(DistillConfig(shards=Path(sys.argv[1]), method=__file__, epochs=1)):
        print(run.name, run.state, run.agreement, run.directory)
