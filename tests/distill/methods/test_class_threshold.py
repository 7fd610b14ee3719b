"""Class thresholds and the share of the teacher match their formulas."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from distill.methods._class_threshold import teacher_share, thresholds

pytestmark = pytest.mark.usefixtures("one_thread")


def test_thresholds_follow_the_class_counts() -> None:
    found = thresholds(torch.tensor([10.0, 5.0, 1.0, 0.0]), 0.95, 0.0)
    typed = [0.95 * b / (2 - b) for b in (1.0, 0.5, 0.1, 0.0)]
    assert found.tolist() == pytest.approx(typed)
    assert thresholds(torch.tensor([10.0, 0.0]), 0.95, 0.3).tolist() == pytest.approx([0.95, 0.3])


def test_the_share_of_the_teacher_decreases() -> None:
    smooth = [teacher_share(p / 100, "smooth", 2 / 3) for p in range(100)]
    assert smooth == sorted(smooth, reverse=True)
    assert smooth[0] == pytest.approx(1 - math.exp(-5))
    assert max(a - b for a, b in itertools.pairwise(smooth)) < 0.05
    assert smooth[-1] == 0
