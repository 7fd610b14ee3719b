"""The recipe of a training: settings that do not fit together are refused."""

from __future__ import annotations

from typing import Any

import pytest

from distill.recipe import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def test_parts_of_a_batch_must_be_equal() -> None:
    with pytest.raises(ValueError, match="a batch of 16 cannot be split into 3 equal parts"):
        Recipe(steps=1, batch_size=16, accumulate=3)


@pytest.mark.parametrize(
    "recipe", [{"steps": 0}, {"batch_size": 2}, {"views": -1}, {"lr": 0.0}, {"lr": float("nan")}]
)
def test_bad_recipes_raise(recipe: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least"):
        Recipe(**{"steps": 1, **recipe})
