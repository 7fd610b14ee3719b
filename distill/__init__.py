"""The training stage: it trains any number of students on shards in one pass over the images.

An image passes through these modules. `data` decides which row comes at which step, decodes it onto
the device and cuts the views that students see. `targets` gives the teacher's output for each view,
computed online or read from a cache. The loop in `train` passes both to each learner of `training`,
which is one student with its method (`method`, methods/, losses/), its optimizers and its
checkpoint.

`config` holds the options of the commands, and `run` does their work. `recipe` holds the length,
batches and learning rate of a training. `distributed` connects several processes. `provenance`
records where the images came from. `feature_maps` describes how students learn a teacher's map.
evaluation/ measures students, exporters/ writes them for other programs, and teachers/ imports and
trains teachers.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from indexes.lazy import lazy_exports

if TYPE_CHECKING:
    from distill.cli import list_students
    from distill.cli_methods import (
        MethodDescription,
        MethodEntry,
        describe_method,
        list_methods,
    )
    from distill.config import DistillConfig, TargetsConfig
    from distill.evaluation.compare import Comparison
    from distill.evaluation.config import EvaluateConfig
    from distill.evaluation.run import evaluate
    from distill.exporters.config import ExportConfig
    from distill.exporters.run import Export, export
    from distill.method import Batch, Method, MethodError, weighted_mean
    from distill.presets import Preset
    from distill.run import distill, precompute_targets
    from distill.teachers.config import ImportTeacherConfig, TrainTeacherConfig
    from distill.teachers.import_teacher import import_teacher
    from distill.teachers.train_teacher import train_teacher
    from distill.train import StudentRun

__all__ = [
    "Batch",
    "Comparison",
    "DistillConfig",
    "EvaluateConfig",
    "Export",
    "ExportConfig",
    "ImportTeacherConfig",
    "Method",
    "MethodDescription",
    "MethodEntry",
    "MethodError",
    "Preset",
    "StudentRun",
    "TargetsConfig",
    "TrainTeacherConfig",
    "describe_method",
    "distill",
    "evaluate",
    "export",
    "import_teacher",
    "list_methods",
    "list_students",
    "precompute_targets",
    "train_teacher",
    "weighted_mean",
]
_MODULES = {
    "list_students": "cli",
    **dict.fromkeys(
        ("MethodDescription", "MethodEntry", "describe_method", "list_methods"), "cli_methods"
    ),
    **dict.fromkeys(("DistillConfig", "TargetsConfig"), "config"),
    "Comparison": "evaluation.compare",
    "EvaluateConfig": "evaluation.config",
    "evaluate": "evaluation.run",
    "ExportConfig": "exporters.config",
    **dict.fromkeys(("Export", "export"), "exporters.run"),
    **dict.fromkeys(("Batch", "Method", "MethodError", "weighted_mean"), "method"),
    "Preset": "presets",
    **dict.fromkeys(("distill", "precompute_targets"), "run"),
    **dict.fromkeys(("ImportTeacherConfig", "TrainTeacherConfig"), "teachers.config"),
    "import_teacher": "teachers.import_teacher",
    "train_teacher": "teachers.train_teacher",
    "StudentRun": "train",
}
__getattr__ = lazy_exports(__name__, _MODULES)
logging.getLogger(__name__).addHandler(logging.NullHandler())  # the library prints nothing


def __dir__() -> list[str]:
    return __all__
