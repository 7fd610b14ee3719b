"""Progress as log records: ticks, lines, the last line, and their text."""

from __future__ import annotations

import logging

import pytest

from indexes.command.progress import Progress, clock

LOGGER = "indexes.command.progress"


@pytest.fixture(autouse=True)
def log_ticks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)


def test_a_fast_stage_logs_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with Progress("read", 2, "files") as progress:
        progress.add(2)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith("read: 2 files in 0:00, ")
    numbers = record.__dict__["numbers"]
    assert numbers.pop("seconds") >= 0
    assert numbers == {"stage": "read", "done": 2, "total": 2, "unit": "files"}


def test_ticks_draw_a_bar_and_lines_do_not(caplog: pytest.LogCaptureFixture) -> None:
    with Progress("embed", 4, tick_seconds=0, line_seconds=0) as progress:
        progress.add(1, note="(1 of 3 parts)")
        progress.add(3)
    ticks = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert ticks[0].startswith("[#####               ] embed: 1 of 4 images, ")
    assert ticks[0].endswith(" left (1 of 3 parts)")
    assert ticks[1].startswith(f"[{'#' * 20}] embed: 4 of 4 images, ")
    assert [line.partition(",")[0] for line in lines[:2]] == [
        "embed: 1 of 4 images",
        "embed: 4 of 4 images",
    ]
    assert not lines[1].endswith("left")
    assert [hasattr(record, "is_last") for record in caplog.records] == [False] * 4 + [True]


def test_an_unknown_total_takes_a_share(caplog: pytest.LogCaptureFixture) -> None:
    with Progress("walk", line_seconds=0) as progress:
        progress.add(10)
        progress.add(10, frac=0.5)
    first, second, _ = (record.getMessage() for record in caplog.records)
    assert "left" not in first
    assert second.startswith("walk: 20 images, ")
    assert second.endswith(" left")


def test_a_failed_stage_claims_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ZeroDivisionError), Progress("read", 2) as progress:
        progress.add(1 // 0)
    assert not caplog.records


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (75, "1:15"), (3_599.6, "1:00:00"), (3_700, "1:01:40")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
