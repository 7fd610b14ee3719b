"""Students that end in a projector and the classifier of their teacher (SimKD)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from distill.feature_maps import probe_features, teacher_map
from distill.method import Method, weighted_mean
from distill.recipe import Needs
from indexes.models.net import Net, reuse_classifier_net
from indexes.models.teacher import Teacher

MIN_SIZE = 1e-12  # of a teacher whose map is zero everywhere


def reuse_classifier(
    student: Net, teacher: Teacher, *, factor: int = 2, depthwise: bool = False
) -> Net:
    """Combine the student, a new projector and a frozen copy of the teacher's classifier.

    The map of the new net is the projected one [B, D, h', w'], and its features [B, D] are the mean
    of that map; h' and w' are the smaller of the student's and the teacher's sides. The student's
    own classifier is removed.
    """
    shape = projector_shape(student, teacher, factor=factor, depthwise=depthwise)
    shape["arguments"] = student.arguments
    return reuse_classifier_net(student, shape, *teacher.head)


def projector_shape(
    student: Net, teacher: Teacher, *, factor: int, depthwise: bool
) -> dict[str, Any]:
    """Return the arguments of the Projector from the student's map to the teacher's."""
    target = teacher_map(teacher)
    width, *side = target.shape
    return {
        "width_in": probe_features(student, teacher.card.input_size).map.shape[1],
        "width": width,
        "side": side,
        "factor": factor,
        "depthwise": depthwise,
        "signed": target.signed,
    }


def mean_square(map_BDHW: Tensor, weights_B: Tensor) -> Tensor:
    """Return the weighted mean over the images of the mean square of maps [B, D, h, w], a scalar.

    An alignment that is divided by it has the map's own size as its unit, so that one weight suits
    any teacher; it is the share of the map's energy that the student lacks. OURS.

    Example:
        >>> import torch
        >>> mean_square(torch.full((2, 1, 2, 2), 3.0), torch.ones(2)).item()
        9.0
    """
    squares_B = map_BDHW.float().flatten(1).square().mean(1)
    return weighted_mean(squares_B, weights_B).clamp_min(MIN_SIZE)


class ReusedClassifier(Method):
    """A method whose student learns the teacher's map.

    Encoder, projector and the teacher's classifier are deployed as one net. The method's Config has
    the projector's `factor`.
    """

    max_grad_norm = 5.0  # without it some seeds learn half as fast. OURS

    def __init__(
        self, student: Net, teacher: Teacher, config: Any, *, depthwise: bool = False
    ) -> None:
        reused = reuse_classifier(student, teacher, factor=config.factor, depthwise=depthwise)
        super().__init__(reused, teacher, config)

    @classmethod
    def needs(cls, config: Any) -> Needs:
        """The teacher's map."""
        return "map"
