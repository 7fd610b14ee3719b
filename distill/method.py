"""The interface of a distillation method: a student, extra heads, and the losses of a batch.

B rows of a batch (with k views of each image, those of the first view come first), C classes, D
features of the teacher, h and w the sides of its map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distill.recipe import Needs, Optimizer
from indexes.models.net import Net
from indexes.models.teacher import Teacher
from indexes.plugins import PluginError


class MethodError(ValueError):
    """The method stops the training; the message says what to change."""


@dataclass(frozen=True)
class Batch:
    """The inputs of a method in one step, all on one device.

    pixels [B, 3, S, S] in [0, 1]; weights [B]; the teacher's logits [B, C] and, where the method
    `needs` them, its features [B, D] or its map [B, D, h, w], and its map of the stage before
    [B, M, h', w']. There are no labels. `drawn` [B] is None, or after `rows` the number of each row
    in the batch before: equal for copies of a row.
    """

    pixels: Tensor
    weights: Tensor
    logits: Tensor
    features: Tensor | None
    drawn: Tensor | None = None
    stage: Tensor | None = None

    @property
    def teacher_features(self) -> Tensor:
        """The teacher's features [B, D]; if the batch has a map instead, its mean."""
        assert self.features is not None
        return self.features if self.features.ndim == 2 else self.features.mean((2, 3))

    @property
    def teacher_map(self) -> Tensor:
        """The teacher's map [B, D, h, w], if the method needs it. Its mean is the features."""
        assert self.features is not None
        assert self.features.ndim == 4
        return self.features

    def rows(self, index: Tensor) -> Batch:
        """Return the rows of the batch at `index` [b]."""
        features = None if self.features is None else self.features[index]
        stage = None if self.stage is None else self.stage[index]
        return Batch(
            self.pixels[index], self.weights[index], self.logits[index], features, index, stage
        )

    def reweighted(self, factor_B: Tensor) -> Batch:
        """Return the same batch with its weights [B] multiplied by `factor_B` [B]."""
        return replace(self, weights=self.weights * factor_B)


class Method(nn.Module):
    """The base class of distillation methods.

    A file in distill/methods holds one subclass and its frozen keyword-only `Config`.
    """

    optimizer: ClassVar[Optimizer] = "sgd"
    """The optimizer of the loop, unless the Recipe names another one."""
    max_grad_norm: ClassVar[float] = math.inf
    """The gradient is clipped to this norm before a step of SGD; Muon ignores its magnitude."""

    def __init__(self, student: Net, teacher: Teacher, config: Any) -> None:
        super().__init__()
        self.student, self.config = student, config
        self.module = student.module
        self.observed: dict[str, Tensor] = {}
        """Scalars or vectors that are logged beside the losses; emptied before each step."""

    @classmethod
    def needs(cls, config: Any) -> Needs:
        """Return the teacher outputs in a batch; features and map both include the logits."""
        return "logits"

    @classmethod
    def views(cls, config: Any) -> int:
        """Return k, the number of views of each image in a batch; a batch of B images has k B."""
        return 1

    @classmethod
    def oversample(cls, config: Any) -> int:
        """Return the number of batches to read for each one that `select_batch` returns."""
        return 1

    @classmethod
    def smaller(cls, config: Any) -> dict[str, Any]:
        """Return other Configs of the method whose deployed net is smaller, by their settings.

        The warning about a student that outgrows its teacher names them; without any, it names kd.
        """
        return {}

    def eval_logits(self, pixels: Tensor) -> Tensor:
        """Return the student's logits [B, C] in evaluation mode, for use in `select_batch`."""
        was_training = self.module.training
        self.module.eval()
        _, _, logits_BC = self.student(pixels)
        self.module.train(was_training)
        return logits_BC

    def select_batch(self, batch: Batch, progress: float) -> Batch:
        """Return the rows of an oversampled batch to train on; called without gradients."""
        return batch

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return named scalar terms whose sum is minimized; `progress` is in 0-1."""
        raise NotImplementedError

    def check(self, observed: Mapping[str, Any]) -> None:
        """Check the means of `observed` since the last log line; raise MethodError to stop."""

    def own_optimizer(self) -> torch.optim.Optimizer | None:
        """Return an optimizer for parameters that the loop's optimizer must not train, or None."""
        return None

    def deployed(self) -> Net:
        """Return the net that is saved and that users run."""
        return self.student


def at_least(config: Any, **least: float) -> None:
    """Raise ValueError if a setting of `config` is below its minimum, given here by name."""
    for name, value in least.items():
        if getattr(config, name) < value:
            raise ValueError(f"{name} must be at least {value}, not {getattr(config, name)}")


def weighted_mean(values_B: Tensor, weights_B: Tensor) -> Tensor:
    """Return sum(w l) / sum(w) of values [B] and weights [B], a scalar; zero if all weigh zero.

    Raises ValueError unless both are of the same shape [B].

    Example:
        >>> weighted_mean(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0])).item()
        1.0
    """
    if values_B.shape != weights_B.shape or values_B.ndim != 1:
        raise ValueError(
            f"a loss of shape {list(values_B.shape)} for weights of shape {list(weights_B.shape)}: "
            "return one value per image, [B], and let weighted_mean reduce it"
        )
    total = weights_B.sum()
    return (values_B * weights_B).sum() / total.clamp_min(1e-12)


def total_loss(terms: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of a method's terms, a scalar.

    Raises PluginError unless `terms` maps names to scalars.

    Example:
        >>> total_loss({"kd": torch.tensor(1.0), "align": torch.tensor(2.0)}).item()
        3.0
    """
    if not isinstance(terms, Mapping) or not terms:
        raise PluginError(
            f"losses() returned {type(terms).__name__}: return a dict of named terms, such as "
            '{"kd": weighted_mean(loss, batch.weights)}'
        )
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.ndim:
            shape = list(term.shape) if isinstance(term, Tensor) else type(term).__name__
            raise PluginError(
                f"losses() returned the term {name!r} as {shape}: return a scalar tensor; "
                "weighted_mean makes one of values [B]"
            )
    return torch.stack(list(terms.values())).sum()


def method_class(module: ModuleType) -> type[Method]:
    """Return the Method subclass of a plug-in file.

    Raises ValueError unless the file defines exactly one subclass and a Config.
    """
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Method)
        and value.__module__ == module.__name__
    ]
    if len(classes) != 1 or not hasattr(module, "Config"):
        raise ValueError(
            f"{module.__file__} must define one subclass of distill.method.Method and a frozen "
            f"dataclass Config; it has {len(classes)} subclasses"
        )
    return classes[0]
