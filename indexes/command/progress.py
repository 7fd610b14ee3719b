"""Progress of a stage as log records: a bar on a terminal, or else a line every ten seconds."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Any

TICK_SECONDS, LINE_SECONDS = 0.2, 10.0
BAR = 20

log = logging.getLogger(__name__)


class Progress:
    """Counts the units of one stage and logs the rate and the time left.

    `total` is None if it is unknown; `add` may then give the share done as `frac`. A tick (DEBUG)
    redraws the bar of a terminal. A line (INFO) serves all other output.

    Example:
        >>> with Progress("read", total=2, unit="files") as progress:
        ...     progress.add(2)
    """

    def __init__(
        self,
        title: str,
        total: int | None = None,
        unit: str = "images",
        *,
        tick_seconds: float = TICK_SECONDS,
        line_seconds: float = LINE_SECONDS,
    ) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.tick_seconds, self.line_seconds = tick_seconds, line_seconds
        self.done, self.frac, self.start = 0, 0.0, time.monotonic()
        self._next_tick = self.start + tick_seconds / 2
        self._next_line = self.start + line_seconds

    def __enter__(self) -> Progress:
        return self

    def add(self, count: int, *, frac: float | None = None, note: str = "") -> None:
        """Add `count` units; `frac` in 0-1 is the share done if the total is unknown."""
        self.done += count
        if frac is not None:
            self.frac = frac
        elif self.total:
            self.frac = self.done / self.total
        now = time.monotonic()
        if now >= self._next_tick and log.isEnabledFor(logging.DEBUG):
            self._next_tick = now + self.tick_seconds
            filled = round(BAR * min(self.frac, 1.0))
            log.debug("[%s] %s", f"{'#' * filled:<{BAR}}", self._text(now, note))
        if now >= self._next_line:
            self._next_line = now + self.line_seconds
            log.info("%s", self._text(now, note), extra={"numbers": self._numbers(now)})

    def _text(self, now: float, note: str) -> str:
        seconds = max(now - self.start, 1e-9)
        text = f"{self.title}: {self.done:,}"
        if self.total:
            text += f" of {self.total:,}"
        text += f" {self.unit}, {self.done / seconds:,.0f}/s"
        if 0 < self.frac < 1:
            text += f", {clock(seconds * (1 - self.frac) / self.frac)} left"
        return f"{text} {note}".rstrip()

    def _numbers(self, now: float) -> dict[str, Any]:
        return {
            "stage": self.title,
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "seconds": round(now - self.start, 3),
        }

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        now = time.monotonic()
        seconds = now - self.start
        rate = self.done / max(seconds, 1e-9)
        log.info(
            "%s",
            f"{self.title}: {self.done:,} {self.unit} in {clock(seconds)}, {rate:,.0f}/s",
            extra={"is_last": True, "numbers": self._numbers(now)},
        )


def clock(seconds: float) -> str:
    """Format seconds as minutes and seconds, with hours if there are any.

    Example:
        >>> clock(75), clock(3_700)
        ('1:15', '1:01:40')
    """
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
