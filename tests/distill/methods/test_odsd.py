"""ODSD: every form that the paper leaves open."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from distill.methods import odsd
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards
from tests.support.training import log_lines, run

World = tuple[Shards, Teacher]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("low_noise", "relation"),
    list(itertools.product(("subspace", "transition"), ("soft", "infonce"))),
)
def test_every_form_of_odsd_trains(
    world: World, tmp_path: Path, low_noise: Any, relation: Any
) -> None:
    config = odsd.Config(low_noise_form=low_noise, teacher_form=relation)
    outcome = run(world, tmp_path, "odsd", config=config, steps=3)[0]
    terms = [line["terms"] for line in log_lines(outcome.directory) if "terms" in line][-1]
    assert terms.keys() == {"total", "kd", "low_noise", "self", "teacher"}
    assert all(value > 0 for value in terms.values())
