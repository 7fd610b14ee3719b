"""The run of `winnow generate`: read a shard set, train a generator, and sample it.

The generator and the synthetic shards are artifacts, each named by the digest of its inputs.
Complete artifacts are reused, and interrupted ones are resumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from indexes import artifact, checkpoint, devices, plugins
from indexes.models.teacher import Teacher, load_labeler, teacher_record
from indexes.shards.reader import Shards, open_shards
from pipeline.config import GenerateConfig
from pipeline.generation.base import Generator
from pipeline.generation.dataset import read_images
from pipeline.generation.sample import SOURCE, Tally, sample_blocks, write_synthetic_shards
from pipeline.generation.train import fit_generator, read_generator
from pipeline.stage import Artifact, stage

PLUGINS = "pipeline.generators"
PARTS = ("Config", "PRESETS", "VERSION", "side", "trainer", "sampler")
Card = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class GenerateRun:
    """A GenerateConfig with everything it names opened.

    `settings` are those of the generator, and `generator_digest` identifies its code.
    """

    config: GenerateConfig
    shards: Shards
    teacher: Teacher
    generator: Generator
    generator_name: str
    generator_digest: str
    settings: Any
    device: str

    @property
    def runs(self) -> Path:
        """The directory of all artifacts."""
        return self.config.runs

    @property
    def name(self) -> str:
        """The name of the artifacts of this run."""
        return f"{self.shards.directory.resolve().name}-{self.generator_name}"


def generate(config: GenerateConfig) -> Shards:
    """Train a generator on shards unless it exists, sample it, and open the synthetic shards.

    Raises ValueError if something does not exist or does not fit, and ArtifactError for shards of
    another teacher or for a damaged artifact.

    Example: `generate(GenerateConfig(shards=shards, n=10_000, preset="small")).to_pandas()`
    """
    run = open_run(config)
    trained = train_generator(run)
    synthetic = write_synthetic(run, trained)
    return open_shards(synthetic.directory)


def open_run(config: GenerateConfig) -> GenerateRun:
    """Open everything that a configuration names.

    Raises ValueError if something does not exist or does not fit.
    """
    name = config.generator
    module: Any = plugins.find(PLUGINS, name)
    lacking = [part for part in PARTS if not hasattr(module, part)]
    if lacking:
        raise ValueError(
            f"generator {name} defines no {', '.join(lacking)}: pipeline/generation/base.py lists "
            "what it must define"
        )
    preset = plugins.preset(module, config.preset) if config.preset else {}
    settings = plugins.configure(module.Config, config.settings, **preset)
    device = devices.choose(config.device)
    shards = config.shards if isinstance(config.shards, Shards) else open_shards(config.shards)
    teacher = config.teacher
    if isinstance(teacher, Teacher):
        shards.check_teacher(teacher.card.digest)
        device = str(teacher.head[0].device)
    else:
        trust, spec = config.trust_builder, str(teacher) if teacher else None
        teacher = load_labeler(shards, spec, config.runs, device=device, trust_builder=trust)
    return GenerateRun(
        config=config,
        shards=shards,
        teacher=teacher,
        generator=module,
        generator_name=Path(name).stem,
        generator_digest=artifact.sha256(name) if name.endswith(".py") else name,
        settings=settings,
        device=device,
    )


def train_generator(run: GenerateRun) -> Artifact:
    """Return the generator, and train it on the shard set if needed."""
    seed, device = run.config.seed, run.device
    side = run.generator.side(run.settings, run.teacher.card.input_size)
    inputs = {
        "shards": artifact.digest(run.shards.card),
        "teacher": run.teacher.card.digest,
        "generator": run.generator_digest,
        "version": run.generator.VERSION,
        "config": run.settings,
        "seed": seed,
    }

    def fit(made: Artifact) -> Card:
        run.teacher.net.to(memory_format=torch.channels_last)
        images = read_images(run.shards, run.teacher, side, device)
        trainer = run.generator.trainer(run.settings, images, run.teacher, seed=seed, device=device)
        outcome = fit_generator(trainer, made.directory, made.digest)
        checkpoint.remove(made.directory)
        return {
            "generator": run.generator_name,
            "config": run.settings,
            "seed": seed,
            "shards": run.shards.directory.resolve().name,
            "num_images": len(run.shards),
            "teacher": teacher_record(run.teacher),
            "classes": run.teacher.card.classes,
            "side": side,
            **outcome,
        }

    return stage(run, "generators", run.name, inputs, fit)


def write_synthetic(run: GenerateRun, trained: Artifact) -> Artifact:
    """Write the synthetic shards; `last-shards.json` still names those of `winnow select`."""
    config, num_classes = run.config, len(run.teacher.card.classes)
    inputs = {"generator": trained.digest, "n": config.n, "keep": config.keep}

    def write(made: Artifact) -> Card:
        card = artifact.read_card(trained.directory, "generators")
        tensors = read_generator(trained.directory, card)
        sampler = run.generator.sampler(
            run.settings, card["side"], num_classes, tensors, run.device
        )
        tally = Tally.of(config.n, num_classes)
        run.teacher.net.to(memory_format=torch.channels_last)
        blocks = sample_blocks(
            sampler, run.teacher, tally, seed=config.seed, keep=config.keep, device=run.device
        )
        contents = write_synthetic_shards(
            blocks, tally, run.teacher, made.directory, plan_digest=made.digest, side=card["side"]
        )
        return {
            "corpus": SOURCE,
            "teacher": teacher_record(run.teacher),
            "method": run.generator_name,
            "config": run.settings,
            "seed": config.seed,
            "generator": {"name": trained.directory.name, "digest": trained.digest},
            "learned_from": {"name": card["shards"], "num_images": card["num_images"]},
            "num_requested": config.n,
            "keep": config.keep,
            **tally.figures(),
            "funnel": tally.funnel(),
            **contents,
        }

    return stage(run, "shards", run.name, inputs, write, directory=config.out)
