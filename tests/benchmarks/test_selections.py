"""The contest of selections: rank correlations, tables, and a resumed run on small data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import selections
from benchmarks.contest import close_gaps
from benchmarks.selections import correlate, ranks, spearman, tables, true_figures
from tests.benchmarks.conftest import tiny_words
from tests.support import corpora


def test_equal_values_share_their_mean_rank() -> None:
    assert ranks([3, 1, 3, 0]).tolist() == [3.5, 2, 3.5, 1]


def test_spearman_matches_values_by_hand() -> None:
    assert spearman([1, 2, 3], [10, 20, 99]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(1 - 6 * 4 / (5 * 24))
    assert spearman([1, 1], [1, 2]) is None


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=30))
def test_spearman_depends_only_on_the_order(pairs: list[tuple[int, int]]) -> None:
    first, second = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    rho = spearman(first, second)
    if rho is None:
        assert len(set(first)) == 1 or len(set(second)) == 1
        return
    assert -1 - 1e-9 <= rho <= 1 + 1e-9
    assert spearman(second, first) == pytest.approx(rho)
    assert spearman([a**3 + 2 * a for a in first], second) == pytest.approx(rho)
    assert spearman([-a for a in first], second) == pytest.approx(-rho)


def row(method: str, n: int, accuracies: list[float], **certificate: float) -> dict[str, Any]:
    cell = {"student": "s", "steps": 10, "accuracies": accuracies}
    return {"method": method, "n": n, "certificate": certificate, "cells": [cell]}


def test_gaps_correlations_and_tables_match_values_by_hand() -> None:
    rows = [
        row("random", 100, [0.4, 0.6], good=1, flat=7),
        row("odsd", 100, [0.6, 0.8], good=3, flat=7),
        row("dfnd", 100, [0.55, 0.55], good=2, flat=7, rare=0),
        row("original", 100, [0.9, 0.9], good=0, flat=7),
        row("random", 200, [0.8, 0.8], good=9, flat=7),
    ]
    rows[0]["purity"] = 0.25
    close_gaps(
        rows,
        low=lambda row: row["method"] == "random",
        high=lambda row: row["method"] == "original",
    )
    assert rows[1]["cells"][0]["gap_closed"] == pytest.approx(0.5)
    assert rows[3]["cells"][0]["gap_closed"] == 1
    assert "gap_closed" not in rows[4]["cells"][0], "there is no original at this N"
    by_figure = {figure["figure"]: figure for figure in correlate(rows)}
    assert by_figure["good"]["all"] == pytest.approx(1), (
        "the original is not counted as a selection of the pool"
    )
    assert by_figure["good"]["within"] == pytest.approx(1)
    assert by_figure["good"]["selections"] == 4
    assert by_figure["flat"]["all"] is None
    assert by_figure["rare"]["selections"] == 1
    text = "\n".join(tables(rows, list(by_figure.values())))
    assert "| odsd (ODSD-style) | 100 | 70.0 (60.0 to 80.0), 50 % |" in text
    assert "| purity | 0.25 |  |" in text
    assert "| good | s | 10 | +1.00 | +1.00 | 4 |" in text
    widths = [part.splitlines() for part in text.split("\n\n")]
    assert all(len({line.count("|") for line in part}) == 1 for part in widths), (
        "all lines of a table have the same number of columns"
    )


def test_true_figures_match_values_by_hand() -> None:
    truth = {"a": 0, "b": 1, "c": 1}
    figures = true_figures(["a", "b", "x", "c"], np.array([0, 0, 0, 1]), truth, 4)
    assert figures["purity"] == 0.75
    assert figures["right"] == 0.5
    entropy = -(np.log(1 / 3) / 3 + 2 / 3 * np.log(2 / 3)) / np.log(4)
    assert figures["true_class_entropy"] == pytest.approx(entropy)
    assert true_figures(["x"], np.array([1]), truth, 4)["purity"] == 0


@pytest.mark.slow
def test_the_contest_runs_and_resumes_on_small_data(tiny_world: Path, commands: list[str]) -> None:
    truth = {"key": [f"im{seed:05d}" for seed in range(30)]}
    truth["label"] = [corpora.CLASSES[seed % 3] if seed % 2 else "junk" for seed in range(30)]
    pq.write_table(pa.table(truth), tiny_world / "truth.parquet")
    words = f"{tiny_words(tiny_world)} --truth {tiny_world}/truth.parquet".split()
    words += ["--methods", "random", "dfnd weights=class_prior weight_cap=2"]
    words += ["--select-args", "--workers 0", "--distill-args", "--batch-size 8"]
    selections.main(words)
    assert commands.count("select") == 3
    assert commands.count("distill") == 3
    result = json.loads((tiny_world / "out.json").read_text())
    by_method = {selection["method"]: selection for selection in result["selections"]}
    assert len(by_method["dfnd weights=class_prior weight_cap=2"]["cells"][0]["accuracies"]) == 1
    assert 0 < by_method["random"]["purity"] < 0.5
    assert "purity" not in by_method["original"]
    assert by_method["original"]["certificate"]["class_entropy"] >= 0
    text = (tiny_world / "out.md").read_text()
    assert "| dfnd weights=class_prior weight_cap=2 | 30 |" in text
    selections.main(words)
    assert commands.count("distill") == 3, "finished work is not repeated"
    assert (tiny_world / "out.md").read_text() == text
