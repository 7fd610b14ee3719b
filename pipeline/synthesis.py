"""The run of `winnow paint`, top to bottom: read a shard set, train a generator on it, paint.

The generator and the painted shards are artefacts, each named by the digest of what it was made
from: whole ones are reused, cut-off ones go on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from indexes import artefact, checkpoint, devices, names, teachers
from indexes.shards import Shards, open_shards
from indexes.teachers import Teacher
from pipeline import corpus_stages, examples, learning, painting
from pipeline.generator import Generator
from pipeline.painting import Keep
from pipeline.run import Made, stage

PLUGINS = "pipeline.generators"
DEFAULT_GENERATOR = "hidfd"
PARTS = ("Config", "PRESETS", "VERSION", "side", "trainer", "painter")


@dataclass(frozen=True, kw_only=True)
class Painted:
    """One run of painting: from which shards, by which generator, and where things go."""

    shards: Shards
    teacher: Teacher
    generator: Generator
    name: str
    generator_digest: str
    config: Any
    n: int
    keep: Keep
    seed: int
    runs: Path
    device: str
    out: Path | None = None
    say: Callable[[str], None] = print


def prepare(
    *,
    shards: Path,
    runs: Path,
    teacher: str | None = None,
    generator: str = DEFAULT_GENERATOR,
    preset: str | None = None,
    settings: Sequence[str] = (),
    n: int = 50_000,
    keep: str = "all",
    seed: int = 0,
    out: Path | None = None,
    device: str = "auto",
    trust_builder: bool = False,
    say: Callable[[str], None] = print,
) -> Painted:
    """What a user types, opened; ValueError (a subclass) says what does not exist or fit."""
    if keep not in get_args(Keep):
        raise ValueError(f"--keep is {' or '.join(get_args(Keep))}, not {keep!r}")
    module: Any = names.find(PLUGINS, generator)
    lacking = [part for part in PARTS if not hasattr(module, part)]
    if lacking:
        raise ValueError(f"{generator} defines no {', '.join(lacking)}: see pipeline/generator.py")
    known = names.preset(module, preset) if preset else {}
    config = names.configure(module.Config, settings, **known)
    where = devices.choose(device)
    opened = open_shards(shards)
    master = teachers.open_labeller(
        opened, teacher, runs, device=where, trust_builder=trust_builder
    )
    return Painted(
        shards=opened,
        teacher=master,
        generator=module,
        name=Path(generator).stem,
        generator_digest=artefact.sha256(generator) if generator.endswith(".py") else generator,
        config=config,
        n=n,
        keep="intended" if keep == "intended" else "all",
        seed=seed,
        runs=runs,
        device=where,
        out=out,
        say=say,
    )


def paint(run: Painted) -> Path:
    """Trains what is not trained and paints what is not painted; the painted shards' directory."""
    learnt = train(run)
    return write_shards(run, learnt).directory


def train(run: Painted) -> Made:
    """The generator, trained on the shard set."""
    side = run.generator.side(run.config, run.teacher.card.input_size)
    inputs = {
        "shards": artefact.digest(run.shards.card),
        "teacher": run.teacher.card.digest,
        "generator": run.generator_digest,
        "version": run.generator.VERSION,
        "config": run.config,
        "seed": run.seed,
    }

    def make(made: Made) -> None:
        run.teacher.net.to(memory_format=torch.channels_last)
        seen = examples.read(run.shards, run.teacher, side, run.device)
        trainer = run.generator.trainer(
            run.config, seen, run.teacher, seed=run.seed, device=run.device
        )
        body = learning.learn(trainer, made.directory, made.digest)
        artefact.write_card(
            made.directory,
            "generators",
            {
                "digest": made.digest,
                "generator": run.name,
                "config": dataclasses.asdict(run.config),
                "seed": run.seed,
                "shards": str(run.shards.directory.resolve().name),
                "num_images": len(run.shards),
                "teacher": corpus_stages.teacher_note(run.teacher),
                "classes": run.teacher.card.classes,
                "side": side,
                **body,
            },
        )
        checkpoint.remove(made.directory)
        run.say(f"generator: {body['steps']:,} steps, {made.directory}")

    return stage(run, "generators", _name(run), inputs, make)


def write_shards(run: Painted, learnt: Made) -> Made:
    """The painted shards; the note that `winnow select` leaves of its last ones is not touched."""
    inputs = {"generator": learnt.digest, "n": run.n, "keep": run.keep}

    def make(made: Made) -> None:
        card = artefact.read_card(learnt.directory, "generators")
        num_classes = len(run.teacher.card.classes)
        painter = run.generator.painter(
            run.config, card["side"], num_classes, learning.read(learnt.directory, card), run.device
        )
        tally = painting.Tally.of(run.n, num_classes)
        run.teacher.net.to(memory_format=torch.channels_last)
        painted = painting.blocks(
            painter, run.teacher, tally, seed=run.seed, keep=run.keep, device=run.device
        )
        body = {
            "digest": made.digest,
            "corpus": painting.SOURCE,
            "teacher": corpus_stages.teacher_note(run.teacher),
            "method": run.name,
            "config": dataclasses.asdict(run.config),
            "seed": run.seed,
            "generator": {"name": learnt.directory.name, "digest": learnt.digest},
            "painted_from": {"name": card["shards"], "num_images": card["num_images"]},
            "asked": run.n,
            "keep": run.keep,
        }
        painting.write(
            painted,
            tally,
            run.teacher,
            made.directory,
            plan_digest=made.digest,
            side=card["side"],
            body=body,
        )

    return stage(run, "shards", _name(run), inputs, make, directory=run.out)


def _name(run: Painted) -> str:
    return f"{run.shards.directory.resolve().name}-{run.name}"
