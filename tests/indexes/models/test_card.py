"""Cards of teachers: every field is checked, and an edited card is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from indexes.models.teacher import TeacherError, load_teacher
from tests.support.teachers import edit_card


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": [0.0, 0.0, 0.0]},
        {"input_size": 64},
        {"classes": ["dog", "cat", "ship"]},
        {"builder": "wrn_16_2"},
        {"arguments": {"width": 2}},
    ],
)
def test_an_edited_card_is_refused(teacher: Path, changes: dict[str, Any]) -> None:
    edit_card(teacher, **changes)
    with pytest.raises(TeacherError, match="was edited"):
        load_teacher(teacher)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("builder", None),
        ("arguments", []),
        ("classes", []),
        ("classes", [1, 2, 3]),
        ("mean", [0.5]),
        ("std", [1.0, 0.0, 1.0]),
        ("std", [1.0, math.inf, 1.0]),
        ("input_size", "32"),
        ("input_size", 10**9),
        ("crop_frac", 0),
        ("crop_frac", 1.5),
        ("interpolation", 3),
        ("interpolation", "cubic"),
        ("accuracy", "high"),
        ("note", None),
        ("weights", None),
        ("weights", {"bytes": "many"}),
    ],
)
def test_a_malformed_card_is_refused_by_field(teacher: Path, field: str, value: Any) -> None:
    edit_card(teacher, **{field: value})
    with pytest.raises(TeacherError, match=field):
        load_teacher(teacher)
