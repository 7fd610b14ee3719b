"""The required contents of a method file, and the weighted mean of a loss."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from distill.method import method_class, total_loss, weighted_mean
from indexes.plugins import PluginError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_weighted_mean_matches_values_by_hand() -> None:
    values = torch.tensor([1.0, 2.0, 100.0])
    assert weighted_mean(values, torch.tensor([1.0, 3.0, 0.0])).item() == pytest.approx(1.75)
    assert weighted_mean(values, torch.zeros(3)).item() == 0


@pytest.mark.parametrize("values", [torch.tensor(1.0), torch.ones(2, 3), torch.ones(4)])
def test_weighted_mean_refuses_a_loss_that_is_not_one_value_per_image(values: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"one value per image, \[B\]"):
        weighted_mean(values, torch.ones(3))


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (torch.tensor(1.0), "returned Tensor: return a dict"),
        ({}, "returned dict: return a dict of named terms"),
        ({"kd": torch.ones(3)}, r"'kd' as \[3\]: return a scalar tensor"),
        ({"kd": 1.0}, "'kd' as float: return a scalar tensor"),
    ],
)
def test_the_terms_of_a_method_are_named_scalars(terms: Any, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        total_loss(terms)


def test_a_file_without_a_method_is_refused() -> None:
    module = ModuleType("empty")
    module.__file__ = "empty.py"
    with pytest.raises(ValueError, match="must define one subclass"):
        method_class(module)
