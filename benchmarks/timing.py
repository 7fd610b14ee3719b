"""What the timed benchmarks share: a clock, alternating rounds, ratios, and lines of one table.

A line is a row of `python -m benchmarks.table`: ours, the floor and the fastest peer in one unit,
and the target. A figure that was not measured is None and shown blank.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

FOLDER = Path("benchmarks")


@dataclass(frozen=True)
class Sample:
    """One measurement: the number of images (or other items), and the seconds that they took."""

    images: float
    seconds: float
    cpu_seconds: float

    def rates(self) -> dict[str, float]:
        """Return the rates that are compared, by name."""
        return {
            "images_per_second": self.images / self.seconds,
            "images_per_cpu_second": self.images / self.cpu_seconds,
        }


def cpu_seconds() -> float:
    """Return the user and system seconds of this process and its children, ended or alive."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    ended = sum(usage.ru_utime + usage.ru_stime for usage in used)
    return ended + sum(map(_seconds_of, _children(os.getpid())))


def _children(process: int) -> list[int]:
    """Return the children that `process` has not yet waited for; empty except on Linux."""
    children: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        children += map(int, task.read_text().split())
    return children


def _seconds_of(process: int) -> float:
    """Return the user and system seconds of a running process and its descendants."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        below = _children(process)
    except (
        OSError
    ):  # The process has ended; RUSAGE_CHILDREN counts it when its parent waits for it.
        return 0.0
    ticks = sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK") + sum(map(_seconds_of, below))


def peak_bytes() -> int:
    """Return the peak memory of this process; getrusage would include the peak of its parent."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def timed(job: Callable[[], float], device: str = "cpu") -> Sample:
    """Time `job`, which returns the number of images that it processed."""
    synchronize(device)
    cpu, begin = cpu_seconds(), time.perf_counter()
    images = job()
    synchronize(device)
    return Sample(images, time.perf_counter() - begin, cpu_seconds() - cpu)


def synchronize(device: str) -> None:
    """Wait until the device has finished its work."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def contest(
    contestants: Mapping[str, Callable[[], Sample]], rounds: int
) -> dict[str, dict[str, Any]]:
    """Measure the contestants in alternating rounds: the median of each figure, and its range.

    The figures of every round are returned as well: a drift of the machine over the rounds does not
    affect the ratios within a round.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, measure in contestants.items():
            samples[name].append(measure())
            rates = samples[name][-1].rates().values()
            print(f"round {number}: {name}", *(f"{rate:,.1f}" for rate in rates), flush=True)
    return {name: medians(rounds_of) for name, rounds_of in samples.items()}


def medians(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the median of each rate, its lowest and highest value, and all its values."""
    rates = [sample.rates() for sample in samples]
    figures: dict[str, Any] = {}
    for key in rates[0]:
        values = [rate[key] for rate in rates]
        figures[key] = statistics.median(values)
        figures[f"lowest_{key}"], figures[f"highest_{key}"] = min(values), max(values)
        figures[f"rounds_{key}"] = values
    return figures


def per_round(
    table: Mapping[str, Mapping[str, Any]], name: str, other: str, key: str
) -> tuple[float, float, float]:
    """Return `name` / `other` of the same round: the median, the lowest and the highest ratio."""
    pairs = zip(table[name][f"rounds_{key}"], table[other][f"rounds_{key}"], strict=True)
    ratios = [figure / base for figure, base in pairs]
    return statistics.median(ratios), min(ratios), max(ratios)


def unit(device: str) -> str:
    """Return the rate to compare: by CPU-seconds where processes compete, by seconds on a GPU."""
    return "images_per_second" if device.startswith("cuda") else "images_per_cpu_second"


def machine(device: str) -> dict[str, Any]:
    """Return the device, the threads and the torch version of a measurement."""
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


@dataclass(frozen=True, kw_only=True)
class Target:
    """The bound of `ours / of`, or of `ours` alone if `of` is empty."""

    of: Literal["floor", "peer", ""]
    sense: Literal[">=", "<="]
    bound: float

    def __str__(self) -> str:
        return f"{'ours / ' + self.of if self.of else 'ours'} {self.sense} {self.bound:g}"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of the table; `floor_name` and `peer_name` name the floor and the peer."""

    row: str
    unit: str
    ours: float | None = None
    floor: float | None = None
    peer: float | None = None
    floor_name: str = ""
    peer_name: str = ""
    target: Target | None = None

    @property
    def to_floor(self) -> float | None:
        """Return ours / floor."""
        return ratio(self.ours, self.floor)

    @property
    def to_peer(self) -> float | None:
        """Return ours / peer."""
        return ratio(self.ours, self.peer)

    @property
    def met(self) -> bool | None:
        """Return whether the target is met; None without a target or without a measurement."""
        if self.target is None:
            return None
        value = {"floor": self.to_floor, "peer": self.to_peer, "": self.ours}[self.target.of]
        if value is None:
            return None
        bound = self.target.bound
        return value >= bound if self.target.sense == ">=" else value <= bound


def ratio(figure: float | None, base: float | None) -> float | None:
    """Return figure / base; None if one of them is None or base is 0."""
    return figure / base if figure is not None and base else None


def line_of(body: Mapping[str, Any]) -> Line:
    """Read a line that `write` wrote."""
    target = body.get("target")
    return Line(**{**body, "target": Target(**target) if target else None})


def fastest(
    table: Mapping[str, Mapping[str, float]], names: Sequence[str], key: str
) -> tuple[str, float | None]:
    """Return the name and the figure of the highest measured of `names`; ("", None) if none is."""
    measured = [name for name in names if name in table]
    best = max(measured, key=lambda name: table[name][key], default="")
    return best, table[best][key] if best else None


def show(table: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the table, one row for each contestant."""
    for name, row in table.items():
        figures = (
            f"{key}={value:,.4g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in row.items()
            if not key.startswith(("lowest_", "highest_", "rounds_"))
        )
        print(f"{name:<28}", *figures)


def write(name: str, lines: Sequence[Line], **body: Any) -> None:
    """Write benchmarks/NAME.json, and print each line with its ratios."""
    for line in lines:
        parts = [f"{line.row}: ours {number(line.ours)} {line.unit}"]
        if line.floor is not None:
            parts.append(f"ours / {line.floor_name or 'floor'} {number(line.to_floor)}")
        if line.peer is not None:
            parts.append(f"ours / {line.peer_name or 'peer'} {number(line.to_peer)}")
        met = {True: "met", False: "not met", None: "not measured"}[line.met]
        parts.append(f"target {line.target}: {met}" if line.target else "no target")
        print("; ".join(parts))
    result = {"lines": [asdict(line) for line in lines], **body}
    (FOLDER / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def number(value: float | None) -> str:
    """Format a figure briefly; None becomes an empty text."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
