"""Charts show the front, the teacher and every name; the names may hold any characters."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill.evaluation import plot
from distill.evaluation.compare import Comparison
from tests.support.comparisons import make_comparison, student_result


def pixels_of(comparison: Comparison) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = plot.draw(comparison)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def is_near(pixels: Any, color: str) -> Any:
    rgb = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    return (np.abs(pixels - rgb) < 25).all(-1)


@pytest.mark.parametrize("num", [1, 2, 5, 40])
def test_a_chart_shows_any_number_of_students(num: int) -> None:
    with_teacher = pixels_of(make_comparison(num))
    without = pixels_of(make_comparison(num, has_teacher=False))
    for pixels in (with_teacher, without):
        assert pixels.shape[1] == plot.WIDTH_INCHES * plot.DPI
        assert pixels.shape[0] >= plot.MIN_HEIGHT_INCHES * plot.DPI
        assert is_near(pixels, plot.FRONT).sum() > 300, "the points and steps of the front"
        assert 0.005 < (pixels.min(-1) < 200).mean() < 0.3, (
            "some pixels are dark, and most are background"
        )
    dashes = is_near(with_teacher, plot.TEACHER).any(0)
    assert dashes.sum() > 500, "the line of the teacher spans the chart"
    assert not is_near(without, plot.TEACHER).any()


def test_the_same_comparison_gives_the_same_bytes() -> None:
    assert plot.draw(make_comparison(5)) == plot.draw(make_comparison(5))


def test_every_name_has_a_line_in_the_legend() -> None:
    pixels = pixels_of(make_comparison(40))
    legend = pixels[:, int(pixels.shape[1] * (plot.LEGEND_LEFT + 0.07)) :]
    has_ink = (legend.min(-1) < 200).any(1)
    starts = np.flatnonzero(has_ink[1:] & ~has_ink[:-1])
    spacing = plot.LINE_INCHES * plot.DPI
    assert (starts[-1] - starts[0]) / spacing == pytest.approx(40, abs=0.5), (
        "40 students and the teacher"
    )


def test_accuracy_grows_upward_and_cost_to_the_right() -> None:
    comparison = Comparison(
        labeled="val",
        students=(student_result("a", 10**7, 0.6, pareto=True), student_result("b", 10**8, 0.5)),
        teacher=None,
    )
    pixels = pixels_of(comparison)
    chart = pixels[:, : int(pixels.shape[1] * plot.LEGEND_LEFT) - 20]
    front = is_near(chart, plot.FRONT)
    first = np.argwhere(front).mean(0)
    second = np.argwhere(is_near(chart, plot.BEHIND)).mean(0)
    assert first[0] < second[0]
    assert np.argwhere(front)[:, 1].min() < second[1]
