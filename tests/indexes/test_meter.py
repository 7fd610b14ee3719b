"""Means of loss terms: scalars and vectors, with weights, missing steps and several processes."""

from __future__ import annotations

import pytest
import torch

from indexes.meter import TermMeter


def test_means_are_weighted_and_reset() -> None:
    meter = TermMeter()
    meter.add({"a": torch.tensor(1.0), "v": torch.tensor([1.0, 3.0])}, torch.tensor(3.0))
    meter.add({"a": torch.tensor(5.0)})
    assert meter.take() == {"a": 2.0, "v": [1.0, 3.0]}
    assert meter.take() == {}


def test_a_term_without_weight_is_zero() -> None:
    meter = TermMeter()
    meter.add({"a": torch.tensor(7.0)}, torch.tensor(0.0))
    assert meter.take() == {"a": 0.0}


def test_no_gradient_is_stored() -> None:
    meter = TermMeter()
    loss = torch.ones((), requires_grad=True)
    meter.add({"loss": loss * 2})
    assert not next(iter(meter._sums.values())).requires_grad


def test_processes_are_summed_in_one_message() -> None:
    messages = []

    def both(sums: torch.Tensor) -> torch.Tensor:
        messages.append(sums.clone())
        return sums + torch.tensor([1.0, 1.0, 9.0, 1.0])  # the sums of the other process

    meter = TermMeter()
    meter.add({"a": torch.tensor(1.0), "b": torch.tensor(2.0)})
    assert meter.take(both) == pytest.approx({"a": 5.0, "b": 1.5})
    assert len(messages) == 1
