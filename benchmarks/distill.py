"""Distillation, compared with floors and peers: one pair, the same images, batch and threads.

Command: python -m benchmarks.distill --shards DIR --teacher DIR [--student resnet20] [--steps 100]
The figures are images per CPU-second (per second on a GPU) of the steps alone, medians over
alternating rounds. There are two floors: `naive`, the loop that a user writes first, with 0 or 2
loader processes, whichever is faster; and `best`, the best loop that we can write, the fastest of
`bare.VARIANTS` in a trial. Ours is `kd` through `distill.run.train_students` in three settings:
`online` runs the teacher at each step, `compiled` also compiles its forward, as `winnow distill`
does in a long training, and `cached` uses cached targets of V views. The peers are the files of
benchmarks/peers; the table reports those that are not installed. `--only best ours` measures only
the contestants whose names begin with these words: more rounds in less time.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import bare, ours, pair, timing
from benchmarks.pair import Pair, Steps
from benchmarks.timing import Line, Sample, Target, timed

PEERS = ("lightning", "timm_task", "torchdistill")
WARM_UP, TRIAL = 3, 8  # steps
WORKERS = (0, 2)  # loader processes of the naive loop

Contestants = dict[str, Callable[[], Sample]]


def timing_of(inputs: Pair, run: Steps, steps: int) -> Callable[[], Sample]:
    """Warm a loop up and return its measurement."""
    run(WARM_UP)

    def job() -> int:
        run(steps)
        return steps * inputs.batch_size

    return lambda: timed(job, inputs.device)


def try_variants(inputs: Pair, variants: Sequence[bare.Variant], rounds: int) -> dict[str, Any]:
    """Compare the variants of the best loop over a few steps, and note those that do not run."""
    trial: Contestants = {}
    refused: dict[str, Any] = {}
    for variant in variants:
        try:
            trial[str(variant)] = timing_of(inputs, bare.best(inputs, variant), TRIAL)
        except Exception as error:
            # A compiler raises errors of any type; another variant is then the best loop.
            refused[str(variant)] = {"refused": f"{type(error).__name__}: {error}"[:200]}
    return {**timing.contest(trial, rounds), **refused}


def is_measured(name: str, args: argparse.Namespace) -> bool:
    """Return whether to measure a contestant: --only is absent or names the beginning of `name`."""
    return not args.only or name.startswith(tuple(args.only))


def peers(inputs: Pair, args: argparse.Namespace, steps: int) -> tuple[Contestants, dict[str, Any]]:
    """Return the installed peers, and notes on all of them."""
    installed: Contestants = {}
    notes: dict[str, Any] = {}
    for name in (peer for peer in PEERS if is_measured(peer, args)):
        module = importlib.import_module(f"benchmarks.peers.{name}")
        try:
            installed[name] = timing_of(inputs, module.make(inputs, args.workers), steps)
            notes[name] = {"setup": module.SETUP}
        except ImportError as error:
            notes[name] = {"setup": f"not installed ({error})"}
    return installed, notes


def lines(table: dict[str, dict[str, float]], key: str) -> list[Line]:
    """Return three rows: online and compiled against the floors, cached against the naive floor."""
    figure = {name: row[key] for name, row in table.items()}
    slow, naive = timing.fastest(table, [f"naive, {count} workers" for count in WORKERS], key)
    name, peer = timing.fastest(table, PEERS, key)
    row = partial(Line, unit=key.replace("_", " "), peer=peer, peer_name=name)
    online, compiled, cached = (figure.get(f"ours, {n}") for n in ("online", "compiled", "cached"))
    return [
        row(row="distill, online", ours=online, floor=naive, floor_name=slow,
            target=Target(of="floor", sense=">=", bound=1.25)),
        row(row="distill, online, best loop", ours=compiled, floor=figure.get("best"),
            floor_name="best loop", target=Target(of="floor", sense=">=", bound=0.97)),
        row(row="distill, cached", ours=cached, floor=naive, floor_name=slow,
            target=Target(of="floor", sense=">=", bound=1.7)),
    ]  # fmt: skip


def main(words: Sequence[str] | None = None) -> None:
    """Print the table and write benchmarks/distill.json."""
    args = arguments(words)
    pair.begin(args)
    inputs, steps = pair.pair_of(args), args.steps
    key = timing.unit(inputs.device)
    print(f"{len(inputs.images_NRR3):,} images; variants of the best loop:")
    variants = try_variants(inputs, bare.VARIANTS[: args.variants], args.rounds)
    timing.show(variants)
    named = {str(variant): variant for variant in bare.VARIANTS}
    chosen, _ = timing.fastest({n: r for n, r in variants.items() if key in r}, [*variants], key)
    loops: dict[str, Callable[[], Steps]] = {
        **{f"naive, {count} workers": partial(bare.naive, inputs, count) for count in WORKERS},
        "best": partial(bare.best, inputs, named[chosen]),
    }
    contestants: Contestants = {
        name: timing_of(inputs, make(), steps)
        for name, make in loops.items()
        if is_measured(name, args)
    }
    installed, notes = peers(inputs, args, steps)
    settings: dict[str, dict[str, Any]] = {
        "ours, online": {},
        "ours, compiled": {"compiled": True},
        "ours, cached": {"views": args.views},
    }
    settings = {name: more for name, more in settings.items() if is_measured(name, args)}
    rest: dict[str, list[float]] = {name: [] for name in settings}
    with contextlib.ExitStack() as stack:
        scratch = args.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, more in settings.items():
            job = ours.job_of(inputs, args.shards, scratch, **more)
            ours.run(job, ours.WARM_UP)  # warm-up; this also caches targets and compiles nets
            contestants[name] = partial(ours.steps_of, job, steps, rest[name])
        table = timing.contest({**contestants, **installed}, args.rounds)
    other = {name: {"seconds_besides_steps": statistics.median(rest[name])} for name in rest}
    other |= {"best": {"variant": chosen}} | notes
    report: dict[str, Any] = {
        name: {**table.get(name, {}), **other.get(name, {})} for name in [*table, *notes]
    }
    timing.show(report)
    for name in settings if "best" in table else ():
        ratio, lowest, highest = timing.per_round(table, name, "best", key)
        print(f"{name} / best in the same round: {ratio:.3f} ({lowest:.3f} to {highest:.3f})")
    result = {"variants": variants, "contestants": report, "machine": timing.machine(inputs.device)}
    timing.write("distill", lines(table, key), **result, command=pair.plain(args))


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    options = pair.parser(__doc__)
    options.add_argument("--student", default="resnet20", help="the student network")
    options.add_argument(
        "--views", type=int, default=2, help="views of each image in the cached targets"
    )
    options.add_argument("--workers", type=int, default=0, help="loader processes of the peers")
    options.add_argument("--only", nargs="+", help="prefixes of the contestants to measure")
    options.add_argument(
        "--images", type=int, help="images of the shards that floors and peers use"
    )
    options.add_argument(
        "--variants",
        type=int,
        help="variants of the best loop to try, in order; the last ones compile",
    )
    return options.parse_args(words)


if __name__ == "__main__":
    main()
