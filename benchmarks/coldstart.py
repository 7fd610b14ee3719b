"""Cold start: the time of `--help`, compared with the time of importing torch.

Command: python -m benchmarks.coldstart [--rounds 5]
Each command runs in a new process. The rounds alternate between the commands. The figures are the
medians of the wall-clock seconds and of the CPU-seconds. The target holds for the larger of the
two, for every command.
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


def time_process(words: Sequence[str]) -> dict[str, float]:
    """Measure the seconds and CPU-seconds of a Python process. Raises RuntimeError if it fails."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit status {process.returncode}")
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": used.ru_utime + used.ru_stime,
    }


def imports_torch(words: Sequence[str]) -> bool:
    """Return whether a Python process imports torch."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], capture_output=True, text=True, check=True
    )
    return any(line.rpartition("|")[2].strip() == "torch" for line in done.stderr.splitlines())


def main(words: Sequence[str] | None = None) -> None:
    """Print the table and write benchmarks/coldstart.json."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=5, help="measurements of each command")
    args = options.parse_args(words)
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in COMMANDS}
    for command in COMMANDS.values():
        time_process(command)  # Brings the files into the page cache.
    for _ in range(args.rounds):
        for name, command in COMMANDS.items():
            samples[name].append(time_process(command))
    table = {
        name: {
            **{key: statistics.median(sample[key] for sample in rounds) for key in rounds[0]},
            "imports_torch": imports_torch(COMMANDS[name]),
        }
        for name, rounds in samples.items()
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
