"""DIST: match the correlations of the teacher's probabilities, within images and within classes.

Paper: Knowledge Distillation from A Stronger Teacher (Huang et al., NeurIPS 2022, arXiv
2205.10536); SOURCE. L = inter T^2 mean_i (1 - r_i) + intra T^2 mean_c (1 - r_c), where r_i is
Pearson's correlation of student and teacher over the classes of image i, and r_c over the images of
the batch for class c. The paper adds a cross-entropy with the labels, which unlabeled images lack.
Command: winnow distill --method dist
Cost: that of kd.
Expected: docs/results.md has our measurements.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from distill.losses.dist import dist_inter, dist_intra
from distill.method import Batch, Method, weighted_mean
from distill.presets import CIFAR_RECIPE, Preset, on_pairs


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of dist."""

    temperature: float = 4.0
    """Temperature T of both softmaxes. SOURCE (for CIFAR)"""
    inter: float = 2.0
    """Weight of the correlation within an image. SOURCE"""
    intra: float = 2.0
    """Weight of the correlation within a class. SOURCE"""


RELEASE = {"batch_size": 64, **CIFAR_RECIPE}
NOTES = (
    "The weights, the temperature and, for CIFAR, the length and the rate of the paper: SOURCE.",
    "Plain momentum, and crops of reflected images: OURS.",
)
FIGURES = {
    "cifar100_wrn40_2_wrn40_1": (None, "with labels, on the original data: 74.43 (SOURCE)"),
    "imagenet_r50_r18": (None, "with labels, on the original data: 72.12 (SOURCE)"),
}
SMALL = on_pairs(Preset(config=Config(), recipe=RELEASE, notes=NOTES), FIGURES)
LARGE = on_pairs(Preset(config=Config(temperature=1.0), recipe=RELEASE, notes=NOTES), FIGURES)
PRESETS = {name: (LARGE if name.startswith("imagenet") else SMALL)[name] for name in SMALL}


class DIST(Method):
    """See the top of the file."""

    config: Config

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The weighted scalar terms `inter` and `intra` of a batch. SOURCE."""
        config, weights = self.config, batch.weights
        _, _, logits = self.student(batch.pixels)
        inter = dist_inter(logits, batch.logits, config.temperature)
        intra = dist_intra(logits, batch.logits, config.temperature, weights_B=weights)
        return {
            "inter": config.inter * weighted_mean(inter, weights),
            "intra": config.intra * weighted_mean(intra, weights),
        }
