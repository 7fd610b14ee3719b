"""One progress line: a live one on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType


class Progress:
    """Counts `unit`s of one stage and prints rate and time left to stderr.

    `total` may be unknown (None); `frac` then carries the share done where one is known.
    """

    def __init__(self, title: str, total: int | None = None, unit: str = "images") -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done, self.frac, self.start = 0, 0.0, time.monotonic()
        self.live = sys.stderr.isatty()
        self._next = self.start + (0.1 if self.live else 10.0)

    def __enter__(self) -> Progress:
        return self

    def add(self, count: int, *, frac: float | None = None, note: str = "") -> None:
        """`count` more are done; `frac` in 0-1 is the share done when the total is unknown."""
        self.done += count
        if frac is not None:
            self.frac = frac
        elif self.total:
            self.frac = self.done / self.total
        now = time.monotonic()
        if now >= self._next:
            self._next = now + (0.2 if self.live else 10.0)
            self._print(now, note)

    def _print(self, now: float, note: str) -> None:
        seconds = max(now - self.start, 1e-9)
        text = f"{self.title}: {self.done:,}"
        if self.total:
            text += f" of {self.total:,}"
        text += f" {self.unit}, {self.done / seconds:,.0f}/s"
        if 0 < self.frac < 1:
            text += f", {clock(seconds * (1 - self.frac) / self.frac)} left"
        text += f" {note}" if note else ""
        text = f"\r{text:<79}" if self.live else text
        print(text, end="" if self.live else "\n", file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            if self.live:
                print(file=sys.stderr)
            return
        seconds = time.monotonic() - self.start
        rate = self.done / max(seconds, 1e-9)
        text = f"{self.title}: {self.done:,} {self.unit} in {clock(seconds)}, {rate:,.0f}/s"
        print(f"\r{text:<79}" if self.live else text, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """`75` -> `1:15`; hours where there are any."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
