"""Plain distillation: the student matches the teacher's softened logits and nothing else.

Paper: Hinton et al. 2015 (arXiv 1503.02531); with `standardize`, Sun et al., CVPR 2024 (arXiv
2403.01427).
L = T^2 KL(softmax(t / T) || softmax(s / T)), without the papers' terms on labels (SOURCE). With
`standardize`, the logits of both sides are z-scored first (logit standardization, SOURCE).
Command: winnow distill --method kd
Cost: one forward and backward pass of the student, and one forward of the teacher or its targets.
Expected (docs/results.md): R18 -> ResNet-8, 1,000 steps on web images for CIFAR-10, 67.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from distill.losses.kd import kd, standardized_kd
from distill.method import Batch, Method, weighted_mean
from distill.presets import SMALL_RECIPE, Preset, on_pairs


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of kd."""

    temperature: float = 4.0
    """Temperature T of both softmaxes. SOURCE (the value of DFND and most releases)."""
    standardize: bool = False
    """Whether the logits of both sides are z-scored first; use temperature=2 then. SOURCE (Sun et
    al.)"""
    weight: float = 1.0
    """Weight of the loss. With `standardize`, 9 is published. SOURCE (Sun et al.)"""


NOTES = ("For small images, the length is that of most releases on CIFAR; not measured here.",)
LOST, PLACES = "{} on the original data", "{} on images of Places365"
FIGURES = {
    "cifar100_r34_r18": LOST.format(77.87),
    "cifar100_vgg11_r18": LOST.format(75.07),
    "cifar100_wrn40_2_wrn16_1": LOST.format(64.06),
    "cifar100_wrn40_2_wrn40_1": LOST.format(68.58),
    "cifar100_wrn40_2_wrn16_2": LOST.format(70.79),
    "imagenet_r50_r50": PLACES.format(55.74),
    "imagenet_r50_r18": PLACES.format(45.53),
    "imagenet_r50_mobilenetv2": PLACES.format(39.89),
}
STANDARDIZED = Preset(
    config=Config(standardize=True, temperature=2.0, weight=9.0),
    notes=("Temperature and weight are those of arXiv 2403.01427: SOURCE.",),
)
PRESETS = {
    **on_pairs(
        Preset(config=Config(), recipe=SMALL_RECIPE, notes=NOTES),
        {name: (None, f"{text} (arXiv 2112.06253: SOURCE)") for name, text in FIGURES.items()},
    ),
    "standardized": STANDARDIZED,
}


class KD(Method):
    """See the top of the file."""

    config: Config

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The scalar term `kd` of a batch. SOURCE."""
        config = self.config
        _, _, logits = self.student(batch.pixels)
        loss = standardized_kd if config.standardize else kd
        values = loss(logits, batch.logits, config.temperature)
        return {"kd": config.weight * weighted_mean(values, batch.weights)}
