"""Clocks, medians, ratios and targets; the parts of a pass and of a job add up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ours, students, timing, wholejob
from benchmarks.timing import Line, Sample, Target


def test_medians_are_taken_over_rates() -> None:
    samples = [Sample(100, 1, 2), Sample(100, 4, 4), Sample(100, 2, 1)]
    medians = timing.medians(samples)
    assert medians["images_per_second"] == 50
    assert medians["images_per_cpu_second"] == 50
    assert (medians["lowest_images_per_second"], medians["highest_images_per_second"]) == (25, 100)


def test_rounds_alternate() -> None:
    order: list[str] = []

    def contestant(name: str) -> Sample:
        order.append(name)
        return Sample(1, 1, 1)

    timing.contest({name: lambda name=name: contestant(name) for name in "ab"}, 3)
    assert "".join(order) == "ababab"


def test_cpu_seconds_include_children() -> None:
    busy = "import time\nwhile time.process_time() < .3: pass\nprint(flush=True)\ninput()"
    before = timing.cpu_seconds()
    with subprocess.Popen(
        [sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        alive = timing.cpu_seconds() - before
        child.communicate(b"\n")
    assert alive >= 0.25
    assert timing.cpu_seconds() - before >= 0.25


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target(of="floor", sense=">=", bound=0.5), True),
        (Target(of="floor", sense=">=", bound=0.51), False),
        (Target(of="peer", sense="<=", bound=2), True),
        (Target(of="peer", sense="<=", bound=1.9), False),
        (Target(of="", sense="<=", bound=10), True),
        (Target(of="", sense="<=", bound=9), False),
        (None, None),
    ],
)
def test_targets_compare_in_both_directions(target: Target | None, met: bool | None) -> None:
    line = Line(row="r", unit="u", ours=10, floor=20, peer=5, target=target)
    assert (line.to_floor, line.to_peer) == (0.5, 2)
    assert line.met is met
    assert Line(row="r", unit="u", target=target).met is None, (
        "a row without a measurement has not missed its target"
    )


def test_a_line_survives_a_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "FOLDER", tmp_path)
    target = Target(of="floor", sense=">=", bound=0.97)
    lines = [Line(row="r", unit="u", ours=1.5, target=target), Line(row="s", unit="u")]
    timing.write("name", lines, more=1)
    body = json.loads((tmp_path / "name.json").read_text())
    assert [timing.line_of(line) for line in body["lines"]] == lines
    assert body["more"] == 1


def test_the_fastest_is_chosen_among_the_measured() -> None:
    table = {"a": {"k": 1.0}, "b": {"k": 3.0}, "c": {"k": 9.0}}
    assert timing.fastest(table, ["a", "b", "missing"], "k") == ("b", 3.0)
    assert timing.fastest(table, ["missing"], "k") == ("", None)


def test_parts_of_a_pass_add_up() -> None:
    seconds = {"views": 1.0, "views + teacher": 5.0, "x": 7.0, "y": 6.0, "one pass": 8.5}
    parts = students.parts(seconds, ["x", "y"])
    assert parts["teacher"] == 4
    assert (parts["x"], parts["y"]) == (2, 1)
    assert parts["sum of the parts"] == 1 + 4 + 2 + 1
    assert parts["separate runs"] == 13
    line = students.line(parts, "seconds")
    assert line.to_floor == 8.5 / 8
    assert line.met is False


def test_waits_leave_out_the_first_quarter() -> None:
    def entry(step: int, seconds: float, waited: float) -> dict[str, Any]:
        return {
            "step": step,
            "seconds_per_step": seconds / step,
            "data_wait_frac": waited / seconds,
        }

    log = [entry(10, 11, 9), entry(20, 14, 10), entry(30, 16, 10.2), entry(40, 18, 10.4)]
    assert ours.wait_frac(log) == pytest.approx(0.4 / 4)


def test_stages_add_up_to_the_whole() -> None:
    lines = [
        (1.0, "embed: 64 images, 64/s"),
        (4.0, "embed: 200 images in 0:04"),
        (4.5, "index: 200 vectors in 0:00"),
        (4.6, "      200 in"),
        (6.0, "step 10 of 20, 5 images/s"),
        (6.1, "  resnet8: kd 1.0"),
        (9.0, "step 20 of 20, 5 images/s"),
        (9.5, "resnet8: trained, 0.3 MB"),
        (9.6, "evaluate: 100 images, 50/s"),
        (9.9, "weakest: cat 50.0 %"),
        (10.0, "cost: 0.078 M parameters"),
        (10.2, "the end:"),
    ]
    durations = wholejob.stages(lines, "resnet8")
    stages = {"embed": 4, "index": 0.5, "training": 4.5, "saving": 0.5, "evaluation": 0.5}
    assert durations == pytest.approx({**stages, "the end": 0.2})
    assert sum(durations.values()) == pytest.approx(10.2)
