"""Distil against its floors and its peers: one pair, the same images, batch and threads.

Command: python -m benchmarks.distill --shards DIR --teacher DIR [--student resnet20] [--steps 100]
Figures: images per CPU-second (per second on a GPU) of the steps themselves; rounds alternate,
medians. Floors: the loop that a user writes first (`naive`, by 0 or 2 loader processes, the better
one), and the best one we can write (`best`: the fastest of `bare.VARIANTS` in a trial beforehand).
Ours: `kd` through `distill.run.train_students`, with the teacher at each step (`online`), with its
forward compiled, as `winnow distill` has it in a long training (`compiled`), and with its targets
for V views cached before (`cached`). Peers: files of benchmarks/peers, run
by a Python that has them; the table says which are not installed. `--only best ours` leaves out
whoever's name begins otherwise: more rounds in less time.
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
WORKERS = (0, 2)  # of the naive loader

Contestants = dict[str, Callable[[], Sample]]


def timing_of(given: Pair, run: Steps, steps: int) -> Callable[[], Sample]:
    """A measurement of a loop that is warm."""
    run(WARM_UP)

    def job() -> int:
        run(steps)
        return steps * given.batch_size

    return lambda: timed(job, given.device)


def tried(given: Pair, variants: Sequence[bare.Variant], rounds: int) -> dict[str, Any]:
    """The variants of the best loop against each other, a few steps each; who does not run here."""
    trial: Contestants = {}
    refused: dict[str, Any] = {}
    for variant in variants:
        try:
            trial[str(variant)] = timing_of(given, bare.best(given, variant), TRIAL)
        except Exception as error:
            # A compiler raises whatever it likes; the best loop is then another one.
            refused[str(variant)] = {"refused": f"{type(error).__name__}: {error}"[:200]}
    return {**timing.contest(trial, rounds), **refused}


def wanted(name: str, args: argparse.Namespace) -> bool:
    """Whether a contestant is among those named with --only."""
    return not args.only or name.startswith(tuple(args.only))


def peers(given: Pair, args: argparse.Namespace, steps: int) -> tuple[Contestants, dict[str, Any]]:
    """The peers that are installed, and notes on all of them."""
    installed: Contestants = {}
    notes: dict[str, Any] = {}
    for name in (peer for peer in PEERS if wanted(peer, args)):
        module = importlib.import_module(f"benchmarks.peers.{name}")
        try:
            installed[name] = timing_of(given, module.make(given, args.workers), steps)
            notes[name] = {"setup": module.SETUP}
        except ImportError as error:
            notes[name] = {"setup": f"not installed ({error})"}
    return installed, notes


def lines(table: dict[str, dict[str, float]], key: str) -> list[Line]:
    """Three rows of the table: online against both floors, cached against the naive one."""
    figure = {name: row[key] for name, row in table.items()}
    slow, naive = timing.fastest(table, [f"naive, {count} workers" for count in WORKERS], key)
    name, peer = timing.fastest(table, PEERS, key)
    row = partial(Line, unit=key.replace("_", " "), peer=peer, peer_name=name)
    online, compiled, cached = (figure.get(f"ours, {n}") for n in ("online", "compiled", "cached"))
    return [
        row(row="distil, online", ours=online, floor=naive, floor_name=slow,
            target=Target(of="floor", sense=">=", bound=1.25)),
        row(row="distil, online, best loop", ours=compiled, floor=figure.get("best"),
            floor_name="best loop", target=Target(of="floor", sense=">=", bound=0.97)),
        row(row="distil, cached", ours=cached, floor=naive, floor_name=slow,
            target=Target(of="floor", sense=">=", bound=1.7)),
    ]  # fmt: skip


def main(words: Sequence[str] | None = None) -> None:
    """Prints one table and writes benchmarks/distill.json."""
    args = arguments(words)
    pair.begin(args)
    given, steps = pair.pair_of(args), args.steps
    key = timing.unit(given.device)
    print(f"{len(given.images_NRR3):,} images; the best loop's variants:")
    variants = tried(given, bare.VARIANTS[: args.variants], args.rounds)
    timing.show(variants)
    named = {str(variant): variant for variant in bare.VARIANTS}
    chosen, _ = timing.fastest({n: r for n, r in variants.items() if key in r}, [*variants], key)
    made: dict[str, Callable[[], Steps]] = {
        **{f"naive, {count} workers": partial(bare.naive, given, count) for count in WORKERS},
        "best": partial(bare.best, given, named[chosen]),
    }
    contestants: Contestants = {
        name: timing_of(given, make(), steps) for name, make in made.items() if wanted(name, args)
    }
    installed, notes = peers(given, args, steps)
    settings: dict[str, dict[str, Any]] = {
        "ours, online": {},
        "ours, compiled": {"compiled": True},
        "ours, cached": {"views": args.views},
    }
    settings = {name: more for name, more in settings.items() if wanted(name, args)}
    rest: dict[str, list[float]] = {name: [] for name in settings}
    with contextlib.ExitStack() as held:
        scratch = args.scratch or Path(held.enter_context(tempfile.TemporaryDirectory()))
        for name, more in settings.items():
            job = ours.job_of(given, args.shards, scratch, **more)
            ours.run(job, ours.FEW)  # warm-up; targets are cached, nets compiled
            contestants[name] = partial(ours.steps_of, job, steps, rest[name])
        table = timing.contest({**contestants, **installed}, args.rounds)
    other = {name: {"seconds_besides_steps": statistics.median(rest[name])} for name in rest}
    other |= {"best": {"variant": chosen}} | notes
    whole: dict[str, Any] = {
        name: {**table.get(name, {}), **other.get(name, {})} for name in [*table, *notes]
    }
    timing.show(whole)
    for name in settings if "best" in table else ():
        ratio, lowest, highest = timing.per_round(table, name, "best", key)
        print(f"{name} / best in the same round: {ratio:.3f} ({lowest:.3f} to {highest:.3f})")
    result = {"variants": variants, "contestants": whole, "machine": timing.machine(given.device)}
    timing.write("distill", lines(table, key), **result, command=pair.plain(args))


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    options = pair.parser(__doc__)
    options.add_argument("--student", default="resnet20")
    options.add_argument("--views", type=int, default=2, help="V of the cached targets")
    options.add_argument("--workers", type=int, default=0, help="loader processes of the peers")
    options.add_argument("--only", nargs="+", help="how the names of those measured begin")
    options.add_argument("--images", type=int, help="so many of the shards' for the others")
    options.add_argument(
        "--variants", type=int, help="so many of the best loop's; the last ones are compiled"
    )
    return options.parse_args(words)


if __name__ == "__main__":
    main()
