"""EIKD: every form that the paper leaves open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill.methods import eikd
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards
from tests.support.training import log_lines, run

World = tuple[Shards, Teacher]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "settings",
    [
        {"explicit_form": "map"},
        {"explicit_form": "attention"},
        {"implicit_form": "rkd"},
        {"implicit_form": "similarity"},
        {"form": "both", "keep": 2},
        {"form": "truncate", "keep": 2},
        {"mass": 0.9},
        {"prefer": "divergence"},
        {"prefer": "margin"},
    ],
)
def test_every_form_of_eikd_trains(world: World, tmp_path: Path, settings: dict[str, Any]) -> None:
    outcome = run(world, tmp_path, "eikd", config=eikd.Config(**settings), steps=3)[0]
    terms = [line["terms"] for line in log_lines(outcome.directory) if "terms" in line][-1]
    assert terms.keys() == {"total", "class_drop", "explicit", "implicit"}
    assert all(value > 0 for value in terms.values())
