"""The schedule of a training: when it logs, reports, measures and saves; and its speed."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from distill.training.learner import Learner
from indexes.command.progress import clock

LOG_STEPS = 50  # at most this many steps between two lines of the log file
REPORT_SECONDS = 10.0
CHECKPOINT_SECONDS = 60.0
NUM_AGREEMENTS = 10  # at most this many measurements of agreement in a training
# At most this many held-out images are evaluated per training image. One costs a third of a
# training image, so the measurements take at most 1 % of the time.
HELDOUT_FRAC = 0.03


class Cadence:
    """The clock of one training, from step `start` to `steps`."""

    def __init__(self, start: int, steps: int, per_step: int, num_heldout: int) -> None:
        """`per_step` is the number of views in a batch, which `images_per_second` counts.

        `num_heldout` is the number of images in each measurement of agreement.
        """
        self.start, self.steps, self.per_step = start, steps, per_step
        self.log_steps = max(1, min(LOG_STEPS, steps // 20))
        interval = math.ceil(num_heldout / (HELDOUT_FRAC * per_step))
        self.agreement_steps = max(1, steps // NUM_AGREEMENTS, interval)
        now = time.monotonic()
        self._begun = now
        self._report_at, self._save_at = now + REPORT_SECONDS, now + CHECKPOINT_SECONDS

    def report_due(self) -> bool:
        """Return whether a report is due; if so, the next one is due in REPORT_SECONDS."""
        now = time.monotonic()
        due = now >= self._report_at
        if due:
            self._report_at = now + REPORT_SECONDS
        return due

    def checkpoint_due(self) -> bool:
        """Return whether a checkpoint is due; if so, the next is due in CHECKPOINT_SECONDS."""
        now = time.monotonic()
        due = now >= self._save_at
        if due:
            self._save_at = now + CHECKPOINT_SECONDS
        return due

    def numbers(self, done: int, waited: float) -> dict[str, float]:
        """Return images_per_second, seconds_per_step, data_wait_frac and seconds_left, by name.

        The first three are means since `start`. `done` is the number of steps done; `waited` is the
        time in seconds for which steps have waited for stored images.
        """
        seconds = max(time.monotonic() - self._begun, 1e-9)
        steps = max(done - self.start, 1)
        return {
            "images_per_second": round(steps * self.per_step / seconds, 1),
            "seconds_per_step": round(seconds / steps, 6),
            "data_wait_frac": round(waited / seconds, 4),
            "seconds_left": round(seconds / steps * (self.steps - done), 1),
        }

    def line(
        self,
        done: int,
        numbers: Mapping[str, float],
        learners: Sequence[Learner],
        agreements: Mapping[str, float],
    ) -> str:
        """Return a report: step, speed and time left, then a row of named terms per student."""
        text = (
            f"step {done:,} of {self.steps:,}, {numbers['images_per_second']:,.0f} images/s, "
            f"data wait {100 * numbers['data_wait_frac']:.1f} %, "
            f"{clock(numbers['seconds_left'])} left"
        )
        for learner in learners:
            means = {**learner.terms, **learner.observed}
            if not means:  # nothing has been logged since the student was resumed
                continue
            terms = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
            text += f"\n  {learner.builder}: {terms}"
            if learner.builder in agreements:
                text += f"  agreement {100 * agreements[learner.builder]:.1f} %"
        return text
