"""Fixtures for the tests of cards, weights and teachers: a net and a teacher directory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from indexes.models.net import Net, build_net
from indexes.models.teacher import save_teacher
from tests.support.teachers import CLASSES


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return build_net("resnet8", num_classes=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)).eval()


@pytest.fixture
def teacher(net: Net, tmp_path: Path) -> Path:
    directory = tmp_path / "runs" / "teachers" / "one"
    save_teacher(directory, net, classes=CLASSES, input_size=32, crop_frac=0.5, accuracy=0.9)
    return directory
