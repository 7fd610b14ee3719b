"""The contest of methods: its costs, its table, and a resumed run on small data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import methods
from benchmarks.contest import line
from indexes.models.net import build_net
from indexes.models.teacher import load_teacher, save_teacher
from tests.benchmarks.conftest import tiny_words


def test_multiply_adds_match_a_count_by_hand(tmp_path: Path) -> None:
    net = build_net("vgg8", num_classes=3).eval()
    save_teacher(tmp_path, net, classes=("a", "b", "c"), input_size=32)
    widths, sides = [3, 64, 128, 256, 512, 512], [32, 16, 8, 4, 4]
    macs = sum(9 * widths[i] * widths[i + 1] * sides[i] ** 2 for i in range(5)) + 3 * 512
    assert methods.count_macs(load_teacher(tmp_path)) == macs


def test_tables_mark_the_reconstructions() -> None:
    row = ["| eikd (EIKD-style) | odsd (ODSD-style) low_noise=0 | 68.3 |"]
    assert list(line("eikd", "odsd low_noise=0", "68.3")) == row


@pytest.mark.slow
def test_the_contest_runs_and_resumes_on_small_data(tiny_world: Path, commands: list[str]) -> None:
    words = tiny_words(tiny_world).split()
    words += ["--rows", "random kd", "original kd", "dfnd kd3 contrast=0 oversample=1", "dfnd kd"]
    words += ["--select-args", "--workers 0", "--distill-args", "--batch-size 8"]
    methods.main(words)
    assert commands.count("distill") == 4
    result = json.loads((tiny_world / "out.json").read_text())
    rows = {methods.losses_of(row) + " on " + row["selection"]: row for row in result["rows"]}
    cells = {name: row["cells"][0] for name, row in rows.items()}
    low, high = cells["kd on random"], cells["kd on original"]
    if low["mean"] != high["mean"]:
        assert (low["gap_closed"], high["gap_closed"]) == (0, 1)
    kd3 = cells["kd3 contrast=0 oversample=1 on dfnd"]
    assert kd3["parameters"] > low["parameters"] > 70_000
    assert kd3["macs"] > low["macs"] > 10_000_000
    assert kd3["seconds"] > 0
    assert low["bytes"] == pytest.approx(4 * low["parameters"], rel=0.1)
    text = (tiny_world / "out.md").read_text()
    assert "| dfnd | kd3 contrast=0 oversample=1 |" in text
    parts = [part.splitlines() for part in text.split("\n\n")]
    assert all(len({line.count("|") for line in part}) == 1 for part in parts), (
        "all lines of a table have the same number of columns"
    )
    methods.main(words)
    assert commands.count("distill") == 4, "finished work is not repeated"
    assert (tiny_world / "out.md").read_text() == text
