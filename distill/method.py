"""What every online method is: a student, its own heads, and the named losses of a batch.

B rows of a batch (k views of B / k images, view by view), C classes, D features of the teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

from torch import Tensor, nn

from indexes.nets import Net
from indexes.teachers import Teacher


@dataclass(frozen=True)
class Batch:
    """What a step hands to a method; everything on one device.

    pixels [B, 3, S, S] in [0, 1]; weights [B]; the teacher's logits [B, C] and, where the method
    `needs_features`, its features [B, D]. There are no labels.
    """

    pixels: Tensor
    weights: Tensor
    logits: Tensor
    features: Tensor | None

    @property
    def teacher_features(self) -> Tensor:
        """`features`, of a method that needs them."""
        assert self.features is not None
        return self.features


class Method(nn.Module):
    """A file in distill/methods holds one subclass and its frozen keyword-only `Config`."""

    views: ClassVar[int] = 1
    """Views of an image in one step; with 2 a batch holds half as many images."""
    needs_features: ClassVar[bool] = False
    """Whether the batch carries the teacher's features."""

    def __init__(self, student: Net, teacher: Teacher, config: Any) -> None:
        super().__init__()
        self.student, self.config = student, config
        self.module = student.module

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Named scalars whose sum is minimised; `progress` in 0-1 of the training."""
        raise NotImplementedError

    def deployed(self) -> Net:
        """The net that is saved: what a user runs."""
        return self.student


def weighted_mean(values_B: Tensor, weights_B: Tensor) -> Tensor:
    """sum(w l) / sum(w), a scalar; zero where all weigh zero."""
    total = weights_B.sum()
    return (values_B * weights_B).sum() / total.clamp_min(1e-12)


def method_class(module: ModuleType) -> type[Method]:
    """The one Method subclass that a plug-in file defines; ValueError unless it has that."""
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Method)
        and value.__module__ == module.__name__
    ]
    if len(found) != 1 or not hasattr(module, "Config"):
        raise ValueError(
            f"{module.__file__} must define one subclass of distill.method.Method and a frozen "
            f"dataclass Config; it has {len(found)} subclasses"
        )
    return found[0]
