"""HiDFD's student: learn the teacher's last map and predict with the teacher's classifier.

Paper: Hybrid Data-Free Distillation (arXiv 2412.13525, AAAI 2025); its code was read (SOURCE).
L = align mean (P(f_S) - f_T)^2 / mean f_T^2, where P is the projector of indexes/zoo/_reused.py;
the release does not divide by mean f_T^2. The other half of the method is its data: a few thousand
curated images and many images generated from them::

  winnow generate --shards REAL -n 50000
  winnow distill --method hidfd --shards REAL --mix SYNTHETIC

Cost: the projector adds at least D^2 (9 / 4 + 1 / 2) weights to the student, where D is the number
of the teacher's features. A step of a ResNet-8 takes about half as long again as with kd.
Expected (the paper's, through a secondary note): R34 -> R18, CIFAR-10, 95.39.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from distill.losses._maps import same_side
from distill.losses.feature_mse import feature_mse
from distill.method import Batch, at_least, weighted_mean
from distill.methods._simkd import ReusedClassifier, mean_square
from distill.presets import PROJECTOR_RECIPE, TINY, Preset, on_pairs


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of hidfd."""

    align: float = 100.0
    """Weight of the alignment. The release uses 1 without `relative`, which needs its 240 epochs.
    OURS"""
    relative: bool = True
    """Whether the alignment is divided by the mean square of the teacher's map, so that one weight
    suits any teacher. The release does not divide. OURS"""
    factor: int = 2
    """The projector's inner width is the teacher's number of features divided by this. SOURCE"""

    def __post_init__(self) -> None:
        at_least(self, factor=1)


RELEASE = {"batch_size": 64, **PROJECTOR_RECIPE}
NOTES = (
    "The loss of the release and, for small images, its training: SOURCE.",
    "The release trains on 5,000 collected images, ten times each, and 50,000 generated ones: give "
    "--mix.",
    "ResNets and the projector begin with He's initial weights; the release uses torch's.",
    "The release reports the best epoch on the test set; here the last weights count.",
)
FAITHFUL = Preset(config=Config(align=1.0, relative=False), recipe=RELEASE, notes=NOTES)
PAPER = "the paper, quoted second hand"
FIGURES = {
    "cifar10_r34_r18": (95.39, PAPER),
    "ham10000_r34_r18": (81.52, f"{PAPER}; the nets are assumed, and its crop is central"),
}
PRESETS = {**on_pairs(FAITHFUL, FIGURES, {TINY: {"crop": "zeros"}}), "faithful": FAITHFUL}


class HiDFD(ReusedClassifier):
    """See the top of the file."""

    config: Config

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The scalar term `align` of a batch. SOURCE; its unit with `relative` is OURS."""
        student_map, _, _ = self.student(batch.pixels)
        student_map, target = same_side(student_map, batch.teacher_map)
        values = feature_mse(student_map, target, normalized=False)
        unit = mean_square(target, batch.weights) if self.config.relative else 1.0
        return {"align": self.config.align * weighted_mean(values, batch.weights) / unit}
