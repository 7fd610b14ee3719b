"""Logits are stored in half precision without infinities."""

from __future__ import annotations

import torch

from indexes.logits import to_half


def test_half_precision_saturates() -> None:
    halves = to_half(torch.tensor([1e9, -torch.inf, 1.0]))
    assert halves.dtype == torch.float16
    assert halves.tolist() == [65504, -65504, 1]
