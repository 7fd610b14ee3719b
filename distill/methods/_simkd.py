"""Students that end in a projector and the classifier of their teacher (SimKD)."""

from __future__ import annotations

from typing import Any

from distill.feature_maps import probe_features, teacher_map
from distill.method import Method
from distill.recipe import Needs
from indexes.models.net import Net, reuse_classifier_net
from indexes.models.teacher import Teacher


def reuse_classifier(
    student: Net, teacher: Teacher, *, factor: int = 2, depthwise: bool = False
) -> Net:
    """Combine the student, a new projector and a frozen copy of the teacher's classifier.

    The map of the new net is the projected one [B, D, h', w'], and its features [B, D] are the mean
    of that map; h' and w' are the smaller of the student's and the teacher's sides. The student's
    own classifier is removed.
    """
    target = teacher_map(teacher)
    width, *side = target.shape
    shape = {
        "arguments": student.arguments,
        "width_in": probe_features(student, teacher.card.input_size).map.shape[1],
        "width": width,
        "side": side,
        "factor": factor,
        "depthwise": depthwise,
        "signed": target.signed,
    }
    return reuse_classifier_net(student, shape, *teacher.head)


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
