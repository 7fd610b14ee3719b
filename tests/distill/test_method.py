"""The required contents of a method file, and the weighted mean of a loss."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from distill.method import method_class, weighted_mean

pytestmark = pytest.mark.usefixtures("one_thread")


def test_weighted_mean_matches_values_by_hand() -> None:
    values = torch.tensor([1.0, 2.0, 100.0])
    assert weighted_mean(values, torch.tensor([1.0, 3.0, 0.0])).item() == pytest.approx(1.75)
    assert weighted_mean(values, torch.zeros(3)).item() == 0


def test_a_file_without_a_method_is_refused() -> None:
    module = ModuleType("empty")
    module.__file__ = "empty.py"
    with pytest.raises(ValueError, match="must define one subclass"):
        method_class(module)
