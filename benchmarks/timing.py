"""What the timed benchmarks share: a clock, rounds that alternate, ratios, and lines of one table.

A line is a row of `python -m benchmarks.table`: ours, the floor and the fastest peer in one unit,
and the target of PERFORMANCE. What was not measured is None and shown blank.
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
    """One measurement: so many images (or other things) in so many seconds."""

    images: float
    seconds: float
    cpu_seconds: float

    def rates(self) -> dict[str, float]:
        """What is compared; as in `asdict`, by name."""
        return {
            "images_per_second": self.images / self.seconds,
            "images_per_cpu_second": self.images / self.cpu_seconds,
        }


def cpu_seconds() -> float:
    """User and system time of this process and of all its children, those alive too."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    ended = sum(usage.ru_utime + usage.ru_stime for usage in used)
    return ended + sum(map(_seconds_of, _children(os.getpid())))


def _children(process: int) -> list[int]:
    """The processes that `process` started and has not yet waited for; Linux only, else none."""
    children: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        children += map(int, task.read_text().split())
    return children


def _seconds_of(process: int) -> float:
    """User and system time of a living process, with all that it started."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        below = _children(process)
    except OSError:  # it has ended meanwhile: its parent has, or will have, waited for it
        return 0.0
    ticks = sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK") + sum(map(_seconds_of, below))


def peak_bytes() -> int:
    """The most memory that this process has held; getrusage would count what its parent held."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def timed(job: Callable[[], float], device: str = "cpu") -> Sample:
    """Runs `job`, which says how many images it went through."""
    synchronize(device)
    cpu, begin = cpu_seconds(), time.perf_counter()
    images = job()
    synchronize(device)
    return Sample(images, time.perf_counter() - begin, cpu_seconds() - cpu)


def synchronize(device: str) -> None:
    """Waits until the device has done its work."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def contest(
    contestants: Mapping[str, Callable[[], Sample]], rounds: int
) -> dict[str, dict[str, Any]]:
    """Rounds that alternate between the contestants: the median of each figure, and its range.

    Each round's figures too, for what drifts while all are measured leaves a round's ratios alone.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, measure in contestants.items():
            samples[name].append(measure())
            rates = samples[name][-1].rates().values()
            print(f"round {number}: {name}", *(f"{rate:,.1f}" for rate in rates), flush=True)
    return {name: medians(found) for name, found in samples.items()}


def medians(samples: Sequence[Sample]) -> dict[str, Any]:
    """Median of each rate, with its lowest and highest, and all of them."""
    rates = [sample.rates() for sample in samples]
    found: dict[str, Any] = {}
    for key in rates[0]:
        values = [one[key] for one in rates]
        found[key] = statistics.median(values)
        found[f"lowest_{key}"], found[f"highest_{key}"] = min(values), max(values)
        found[f"rounds_{key}"] = values
    return found


def per_round(
    table: Mapping[str, Mapping[str, Any]], name: str, other: str, key: str
) -> tuple[float, float, float]:
    """The figure of `name` over that of `other` in the same round: median, lowest and highest."""
    pairs = zip(table[name][f"rounds_{key}"], table[other][f"rounds_{key}"], strict=True)
    found = [one / another for one, another in pairs]
    return statistics.median(found), min(found), max(found)


def unit(device: str) -> str:
    """What is compared: CPU-seconds where processes compete, wall-clock time on a GPU."""
    return "images_per_second" if device.startswith("cuda") else "images_per_cpu_second"


def machine(device: str) -> dict[str, Any]:
    """What a result was measured on."""
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


@dataclass(frozen=True, kw_only=True)
class Target:
    """What `ours` over `of` has to be; of nothing, what `ours` itself has to be."""

    of: Literal["floor", "peer", ""]
    sense: Literal[">=", "<="]
    bound: float

    def __str__(self) -> str:
        return f"{'ours / ' + self.of if self.of else 'ours'} {self.sense} {self.bound:g}"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of the table; `floor_name` and `peer_name` say who they are."""

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
        """ours / floor."""
        return ratio(self.ours, self.floor)

    @property
    def to_peer(self) -> float | None:
        """ours / peer."""
        return ratio(self.ours, self.peer)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none or something was not measured."""
        if self.target is None:
            return None
        value = {"floor": self.to_floor, "peer": self.to_peer, "": self.ours}[self.target.of]
        if value is None:
            return None
        bound = self.target.bound
        return value >= bound if self.target.sense == ">=" else value <= bound


def ratio(one: float | None, other: float | None) -> float | None:
    """one / other; None where either is missing or other is 0."""
    return one / other if one is not None and other else None


def line_of(body: Mapping[str, Any]) -> Line:
    """A line as `write` wrote it."""
    target = body.get("target")
    return Line(**{**body, "target": Target(**target) if target else None})


def fastest(
    table: Mapping[str, Mapping[str, float]], names: Sequence[str], key: str
) -> tuple[str, float | None]:
    """Name and figure of the highest of `names` that were measured; ("", None) for none."""
    there = [name for name in names if name in table]
    best = max(there, key=lambda name: table[name][key], default="")
    return best, table[best][key] if best else None


def show(table: Mapping[str, Mapping[str, Any]]) -> None:
    """The table, a row for each contestant; a note for one that was not measured."""
    for name, row in table.items():
        figures = (
            f"{key}={value:,.4g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in row.items()
            if not key.startswith(("lowest_", "highest_", "rounds_"))
        )
        print(f"{name:<28}", *figures)


def write(name: str, lines: Sequence[Line], **body: Any) -> None:
    """benchmarks/NAME.json, and each line with its ratios on the terminal."""
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
    """Short; blank for what was not measured."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
