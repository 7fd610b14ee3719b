"""The Python API of `distill`: its names are pinned, and its import loads no heavy package."""

from __future__ import annotations

import subprocess
import sys

import pytest

import distill

EXPORTS = """
Batch Comparison DistillConfig EvaluateConfig Export ExportConfig ImportTeacherConfig Method
MethodDescription MethodEntry MethodError Preset StudentRun TargetsConfig TrainTeacherConfig
describe_method distill evaluate export import_teacher list_methods list_students
precompute_targets train_teacher weighted_mean
"""


def test_exports_are_pinned() -> None:
    assert distill.__all__ == EXPORTS.split()
    assert dir(distill) == sorted(distill.__all__)
    for name in distill.__all__:
        assert getattr(distill, name).__module__.startswith("distill.")


def test_an_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'distill' has no attribute 'absent'"):
        _ = distill.absent  # type: ignore[attr-defined]


def test_configurations_and_the_list_of_methods_load_no_heavy_package() -> None:
    code = """
import sys, distill
distill.DistillConfig()
assert "kd" in [entry.name for entry in distill.list_methods()]
assert "torch" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
