"""Presets: named settings of a method and its training, each for a teacher and a student.

PAIRS is the one table of pairs; the methods add their settings, and figures with their source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Data:
    """The data set that a teacher was trained on; images are `input_size` pixels wide and high."""

    name: str
    num_classes: int
    input_size: int


@dataclass(frozen=True)
class Pair:
    """The builders of a teacher and of a student, and the lost data of the teacher.

    The accuracies are published top-1 accuracies in % of both nets when they are trained on the
    original data with labels, or None.
    """

    data: Data
    teacher: str
    student: str
    teacher_accuracy: float | None = None
    student_accuracy: float | None = None

    def __str__(self) -> str:
        """The pair in words, with the published accuracies of both nets in brackets."""
        accuracies = self.teacher_accuracy, self.student_accuracy
        teacher, student = ("" if top1 is None else f" ({top1:.2f})" for top1 in accuracies)
        return f"{self.data.name}, {self.teacher}{teacher} -> {self.student}{student}"

    def differences(
        self, teacher: str, students: Sequence[str], *, num_classes: int, input_size: int
    ) -> list[str]:
        """Return in words how other builders and another teacher's data differ from the pair's.

        Example:
            >>> pair = PAIRS["cifar10_r34_r18"]
            >>> pair.differences("resnet34", ["wrn_16_2"], num_classes=3, input_size=32)
            ['the student is wrn_16_2', 'the teacher has 3 classes instead of 10']
        """
        words = [] if _short(teacher) == self.teacher else [f"the teacher is {_short(teacher)}"]
        others = [_short(name) for name in students if _short(name) != self.student]
        words += [f"the student is {name}" for name in others]
        if num_classes != self.data.num_classes:
            expected = self.data.num_classes
            words.append(f"the teacher has {num_classes} classes instead of {expected}")
        if input_size != self.data.input_size:
            expected = self.data.input_size
            words.append(f"its images have {input_size} pixels instead of {expected}")
        return words


def _short(builder: str) -> str:
    """Return the short name of a builder of ours, such as `resnet34`; others as they are."""
    return builder.rpartition(":")[2] if builder.startswith("indexes.zoo.") else builder


CIFAR10, CIFAR100 = Data("CIFAR-10", 10, 32), Data("CIFAR-100", 100, 32)
CINIC10, TINY = Data("CINIC-10", 10, 32), Data("TinyImageNet", 200, 64)
HAM10000, IMAGENET = Data("HAM10000", 7, 224), Data("ImageNet", 1000, 224)
# The accuracies are those of the tables in the Fast-Datafree release (arXiv 2112.06253): SOURCE.
PAIRS = {
    "cifar10_r34_r18": Pair(CIFAR10, "resnet34", "resnet18", 95.70, 95.20),
    "cifar10_vgg11_r18": Pair(CIFAR10, "vgg11", "resnet18", 92.25, 95.20),
    "cifar10_wrn40_2_wrn16_1": Pair(CIFAR10, "wrn_40_2", "wrn_16_1", 94.87, 91.12),
    "cifar10_wrn40_2_wrn40_1": Pair(CIFAR10, "wrn_40_2", "wrn_40_1", 94.87, 93.94),
    "cifar10_wrn40_2_wrn16_2": Pair(CIFAR10, "wrn_40_2", "wrn_16_2", 94.87, 93.95),
    "cifar100_r34_r18": Pair(CIFAR100, "resnet34", "resnet18", 78.05, 77.10),
    "cifar100_vgg11_r18": Pair(CIFAR100, "vgg11", "resnet18", 71.32, 77.10),
    "cifar100_wrn40_2_wrn16_1": Pair(CIFAR100, "wrn_40_2", "wrn_16_1", 75.83, 65.31),
    "cifar100_wrn40_2_wrn40_1": Pair(CIFAR100, "wrn_40_2", "wrn_40_1", 75.83, 72.19),
    "cifar100_wrn40_2_wrn16_2": Pair(CIFAR100, "wrn_40_2", "wrn_16_2", 75.83, 73.56),
    "cinic10_r34_r18": Pair(CINIC10, "resnet34", "resnet18"),
    "tinyimagenet_r34_r18": Pair(TINY, "resnet34", "resnet18"),
    "ham10000_r34_r18": Pair(HAM10000, "torchvision:resnet34", "torchvision:resnet18"),
    "imagenet_r50_r50": Pair(
        IMAGENET, "torchvision:resnet50", "torchvision:resnet50", 75.45, 75.45
    ),
    "imagenet_r50_r18": Pair(
        IMAGENET, "torchvision:resnet50", "torchvision:resnet18", 75.45, 68.45
    ),
    "imagenet_r50_mobilenetv2": Pair(
        IMAGENET, "torchvision:resnet50", "torchvision:mobilenet_v2", 75.45, 70.01
    ),
}

SMALL_RECIPE = {"batch_size": 256, "epochs": 240.0}
"""The length of most published trainings on CIFAR; the other fields of the Recipe are ours. OURS"""
PLAIN_SGD: dict[str, Any] = {
    "nesterov": False,
    "decay_norms": True,
    "warmup_frac": 0.0,
    "max_grad_norm": 0.0,
}
"""SGD in the releases of DFND, SimKD, KD3 and HiDFD, with a constant rate between drops. SOURCE"""
CIFAR_RECIPE = {"epochs": 240.0, "lr": 0.05, "drop_at": (0.625, 0.75, 0.875), **PLAIN_SGD}
"""The training of KD3 and HiDFD on small images; batch sizes and crops differ. SOURCE"""
PROJECTOR_RECIPE = {**CIFAR_RECIPE, "crop": "resized", "crop_area": 0.08}
"""The same with the crops of KD3 and HiDFD. SOURCE"""
IMAGENET_RECIPE = {
    "batch_size": 256,
    "epochs": 120.0,
    "lr": 0.1,
    "drop_at": (0.25, 0.5, 0.75),
    "weight_decay": 1e-4,
    **PLAIN_SGD,
    "crop": "resized",
    "crop_area": 0.1,
}
"""SimKD's training on ImageNet (arXiv 2203.14001; its release, by DALI). SOURCE"""
IMAGENET_NOTE = "For ImageNet, the training is that of SimKD's release instead: SOURCE."


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named configuration of a method and its training, which `--preset NAME` selects."""

    config: Any
    """The method's Config."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the Recipe, or `epochs`."""
    pair: Pair | None = None
    """The teacher, the student and the data. None: any."""
    expected: float | None = None
    """Top-1 accuracy in % of the student. None: not measured."""
    source: str = ""
    """Where the expected figure comes from, with its mark."""
    notes: tuple[str, ...] = ()
    """Sentences: where the settings come from, and how they differ from the source."""

    @property
    def length(self) -> str:
        """The length of the training in words."""
        steps, epochs = self.recipe.get("steps"), self.recipe.get("epochs")
        length = f"{steps:,} steps" if steps else f"{epochs:g} epochs" if epochs else "any length"
        batch_size = self.recipe.get("batch_size")
        return f"{length}, batch {batch_size:,}" if batch_size else length

    @property
    def details(self) -> str:
        """The length, the other fields of the recipe, and the changed settings, in words."""
        others = {
            k: v for k, v in self.recipe.items() if k not in ("steps", "epochs", "batch_size")
        }
        default = {} if self.config is None else vars(type(self.config)())
        changed = {k: getattr(self.config, k) for k in default}
        changed = {k: value for k, value in changed.items() if value != default[k]}
        words = [f"{key}={_in_words(value)}" for key, value in (others | changed).items()]
        return ", ".join([self.length, *words])

    @property
    def figure(self) -> str:
        """The expected figure and its source in words; empty if the preset is for any pair."""
        if self.pair is None:
            return self.source
        if self.expected is None:
            return f"not measured; {self.source}" if self.source else "not measured"
        return f"expected {self.expected:.2f} % top-1 ({self.source})"


def _in_words(value: Any) -> str:
    return ",".join(f"{share:.3g}" for share in value) if isinstance(value, tuple) else str(value)


def on_pairs(
    preset: Preset,
    figures: Mapping[str, tuple[float | None, str]] = {},
    changes: Mapping[Data, Mapping[str, Any]] = {},
) -> dict[str, Preset]:
    """Return `preset` for each of PAIRS, by its name.

    `figures` maps the name of a pair to the expected top-1 accuracy in %, or None, and its source.
    `changes` maps data to fields that replace those of the recipe. For ImageNet, they are those of
    IMAGENET_RECIPE unless it has others.

    Example:
        >>> preset = Preset(config=None, recipe=SMALL_RECIPE)
        >>> on_pairs(preset)["imagenet_r50_r18"].length
        '120 epochs, batch 256'
    """
    changes = {IMAGENET: IMAGENET_RECIPE, **changes}
    presets = {}
    for name, pair in PAIRS.items():
        changed = changes.get(pair.data, {})
        kept = {k: v for k, v in preset.recipe.items() if k != "steps" or "epochs" not in changed}
        expected, source = figures.get(name, (None, ""))
        presets[name] = replace(
            preset,
            pair=pair,
            recipe={**kept, **changed},
            expected=expected,
            source=source,
            notes=(*preset.notes, IMAGENET_NOTE) if changed is IMAGENET_RECIPE else preset.notes,
        )
    return presets
