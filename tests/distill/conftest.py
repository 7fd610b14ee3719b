"""The teacher and the shards that most tests share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch

from distill.evaluation import cost
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards
from tests.support import distillation


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shards, Teacher]:
    root = tmp_path_factory.mktemp("world")
    teacher = distillation.make_teacher(root / "teacher")
    return distillation.make_shards(root / "shards", teacher), teacher


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the speed measurement: no test checks the speed of a net."""
    monkeypatch.setattr(cost, "RUN_SECONDS", 0.001)


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    """Capture the records that a command would show: INFO and above."""
    caplog.set_level(logging.INFO)
