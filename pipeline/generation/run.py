"""The run of `winnow paint`, top to bottom: read a shard set, train a generator on it, paint.

The generator and the painted shards are artifacts, each named by the digest of what it was made
from: whole ones are reused, cut-off ones go on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from indexes import artifact, checkpoint, devices, plugins
from indexes.models.teacher import Teacher, load_labeler, teacher_record
from indexes.shards.reader import Shards, open_shards
from pipeline.generation.base import Generator
from pipeline.generation.dataset import read_examples
from pipeline.generation.sample import SOURCE, Keep, Tally, sample_blocks, write_generated_shards
from pipeline.generation.train import fit_generator, read_generator
from pipeline.stage import Made, stage

PLUGINS = "pipeline.generators"
DEFAULT_GENERATOR = "hidfd"
PARTS = ("Config", "PRESETS", "VERSION", "side", "trainer", "painter")


@dataclass(frozen=True, kw_only=True)
class GenerateRun:
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


def prepare_generation(
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
) -> GenerateRun:
    """What a user types, opened; ValueError (a subclass) says what does not exist or fit."""
    if keep not in get_args(Keep):
        raise ValueError(f"--keep is {' or '.join(get_args(Keep))}, not {keep!r}")
    module: Any = plugins.find(PLUGINS, generator)
    lacking = [part for part in PARTS if not hasattr(module, part)]
    if lacking:
        raise ValueError(
            f"{generator} defines no {', '.join(lacking)}: see pipeline/generation/base.py"
        )
    known = plugins.preset(module, preset) if preset else {}
    config = plugins.configure(module.Config, settings, **known)
    where = devices.choose(device)
    opened = open_shards(shards)
    master = load_labeler(opened, teacher, runs, device=where, trust_builder=trust_builder)
    return GenerateRun(
        shards=opened,
        teacher=master,
        generator=module,
        name=Path(generator).stem,
        generator_digest=artifact.sha256(generator) if generator.endswith(".py") else generator,
        config=config,
        n=n,
        keep="intended" if keep == "intended" else "all",
        seed=seed,
        runs=runs,
        device=where,
        out=out,
        say=say,
    )


def generate_images(run: GenerateRun) -> Path:
    """Trains what is not trained and paints what is not painted; the painted shards' directory."""
    learned = train_generator(run)
    return write_generated(run, learned).directory


def train_generator(run: GenerateRun) -> Made:
    """The generator, trained on the shard set."""
    side = run.generator.side(run.config, run.teacher.card.input_size)
    inputs = {
        "shards": artifact.digest(run.shards.card),
        "teacher": run.teacher.card.digest,
        "generator": run.generator_digest,
        "version": run.generator.VERSION,
        "config": run.config,
        "seed": run.seed,
    }

    def make(made: Made) -> None:
        run.teacher.net.to(memory_format=torch.channels_last)
        seen = read_examples(run.shards, run.teacher, side, run.device)
        trainer = run.generator.trainer(
            run.config, seen, run.teacher, seed=run.seed, device=run.device
        )
        body = fit_generator(trainer, made.directory, made.digest)
        artifact.write_card(
            made.directory,
            "generators",
            {
                "digest": made.digest,
                "generator": run.name,
                "config": dataclasses.asdict(run.config),
                "seed": run.seed,
                "shards": str(run.shards.directory.resolve().name),
                "num_images": len(run.shards),
                "teacher": teacher_record(run.teacher),
                "classes": run.teacher.card.classes,
                "side": side,
                **body,
            },
        )
        checkpoint.remove(made.directory)
        run.say(f"generator: {body['steps']:,} steps, {made.directory}")

    return stage(run, "generators", _name(run), inputs, make)


def write_generated(run: GenerateRun, learned: Made) -> Made:
    """The painted shards; the note that `winnow select` leaves of its last ones is not touched."""
    inputs = {"generator": learned.digest, "n": run.n, "keep": run.keep}

    def make(made: Made) -> None:
        card = artifact.read_card(learned.directory, "generators")
        num_classes = len(run.teacher.card.classes)
        painter = run.generator.painter(
            run.config,
            card["side"],
            num_classes,
            read_generator(learned.directory, card),
            run.device,
        )
        tally = Tally.of(run.n, num_classes)
        run.teacher.net.to(memory_format=torch.channels_last)
        painted = sample_blocks(
            painter, run.teacher, tally, seed=run.seed, keep=run.keep, device=run.device
        )
        body = {
            "digest": made.digest,
            "corpus": SOURCE,
            "teacher": teacher_record(run.teacher),
            "method": run.name,
            "config": dataclasses.asdict(run.config),
            "seed": run.seed,
            "generator": {"name": learned.directory.name, "digest": learned.digest},
            "painted_from": {"name": card["shards"], "num_images": card["num_images"]},
            "asked": run.n,
            "keep": run.keep,
        }
        write_generated_shards(
            painted,
            tally,
            run.teacher,
            made.directory,
            plan_digest=made.digest,
            side=card["side"],
            body=body,
        )

    return stage(run, "shards", _name(run), inputs, make, directory=run.out)


def _name(run: GenerateRun) -> str:
    return f"{run.shards.directory.resolve().name}-{run.name}"
