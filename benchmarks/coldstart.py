"""Cold start: `--help` against importing torch.

Command: python -m benchmarks.coldstart [--rounds 5]
Figures: seconds and CPU-seconds of a process of its own, rounds alternating, medians. The target
holds for the slower of wall clock and CPU, of every command.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks import timing
from benchmarks.timing import Line, Target

FLOOR = "import torch"
COMMANDS = {
    "winnow --help": ("-m", "winnow", "--help"),
    "winnow distill --help": ("-m", "winnow", "distill", "--help"),
    "winnow select --help": ("-m", "winnow", "select", "--help"),
    FLOOR: ("-c", "import torch"),
}


def started(words: Sequence[str]) -> dict[str, float]:
    """Seconds and CPU-seconds of one Python process; RuntimeError where it fails."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}")
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": used.ru_utime + used.ru_stime,
    }


def imports_torch(words: Sequence[str]) -> bool:
    """Whether a Python process imports torch."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], capture_output=True, text=True, check=True
    )
    return any(line.rpartition("|")[2].strip() == "torch" for line in done.stderr.splitlines())


def main(words: Sequence[str] | None = None) -> None:
    """Prints one table and writes benchmarks/coldstart.json."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=5)
    args = options.parse_args(words)
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in COMMANDS}
    for command in COMMANDS.values():
        started(command)  # files come into the system's cache
    for _ in range(args.rounds):
        for name, command in COMMANDS.items():
            samples[name].append(started(command))
    table = {
        name: {
            **{key: statistics.median(one[key] for one in found) for key in found[0]},
            "imports_torch": imports_torch(COMMANDS[name]),
        }
        for name, found in samples.items()
    }
    timing.show(table)
    slowest = {name: max(row["seconds"], row["cpu_seconds"]) for name, row in table.items()}
    worst = max((name for name in COMMANDS if name != FLOOR), key=lambda name: slowest[name])
    line = Line(
        row="cold start",
        unit=f"seconds of `{worst}`",
        ours=slowest[worst],
        floor=slowest[FLOOR],
        floor_name=FLOOR,
        target=Target(of="", sense="<=", bound=1.5),
    )
    timing.write("coldstart", [line], processes=table, rounds=args.rounds)


if __name__ == "__main__":
    main()
