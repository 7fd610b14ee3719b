"""Weights that fit a net are loaded; other weights are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from indexes.models.teacher import TeacherError, load_teacher
from tests.support.teachers import resign


def test_a_mismatch_of_class_names_and_head_is_refused(teacher: Path) -> None:
    resign(teacher, classes=["cat", "dog"])
    with pytest.raises(TeacherError, match=r"head of 3 classes.*2 class names"):
        load_teacher(teacher)


def test_weights_of_another_net_are_refused(teacher: Path) -> None:
    resign(teacher, builder="resnet14")
    with pytest.raises(TeacherError, match=r"does not fit.*layer1\.1\.conv1.*and 27 more"):
        load_teacher(teacher)


def test_a_file_without_weights_is_refused(teacher: Path) -> None:
    (teacher / "model.safetensors").write_bytes(b"\x10" * 64)
    resign(teacher)
    with pytest.raises(TeacherError, match="cannot be read"):
        load_teacher(teacher)


def test_float16_weights_are_loaded_as_float32(teacher: Path) -> None:
    state = load_file(teacher / "model.safetensors")
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_file(half, teacher / "model.safetensors")
    resign(teacher)
    assert {parameter.dtype for parameter in load_teacher(teacher).net.parameters()} == {
        torch.float32
    }
