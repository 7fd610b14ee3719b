"""Fixtures for the tests of generators."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.support.generators import World, color_teacher, make_shards


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Make 24 real images and the teacher that labeled them."""
    directory = tmp_path_factory.mktemp("world")
    teacher = color_teacher(directory / "teacher")
    return make_shards(directory / "shards", teacher), teacher


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run on one thread, so that sums are always added in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
