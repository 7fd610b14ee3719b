"""Run a distillation or compute a target cache, as a configuration describes it."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from distill.config import (
    DistillConfig,
    TargetsConfig,
    last_shards,
    resolve_recipe,
    split_builders,
    student_directories,
)
from distill.data.augment import Augmentation, resolve_crop
from distill.data.sampler import split_heldout
from distill.distributed import ProcessGroup, init_distributed
from distill.evaluation.compare import Comparison
from distill.evaluation.config import EvaluateConfig
from distill.evaluation.run import evaluate
from distill.method import method_class
from distill.presets import Preset
from distill.recipe import Mix
from distill.targets.fast_teacher import compile_pays
from distill.targets.precompute import TargetBuilder, build_target_cache, verify_targets
from distill.train import StudentRun, train
from distill.training.build import TrainingJob, build_learners, build_method, build_setup
from indexes import artifact, plugins
from indexes.models.net import Net
from indexes.models.teacher import Teacher, load_labeler
from indexes.shards.reader import Shards, open_shards
from indexes.sources.spec import open_parts

log = logging.getLogger(__name__)


def distill(config: DistillConfig) -> list[StudentRun]:
    """Train students on curated shards, all in one pass; return the result of each.

    Finished students are skipped, and interrupted ones continue. With `evaluate_on`, the trained
    students are also evaluated. Raises ValueError for options that do not fit, ArtifactError for a
    directory with other settings or shards of another teacher, and NetError for an unknown student.
    At Ctrl-C or SIGTERM it saves a checkpoint, then raises KeyboardInterrupt.

    Example:
        `runs = distill(DistillConfig(shards="runs/shards/demo", students=["resnet8x4"]))`
    """
    runs, _ = distill_and_evaluate(config)
    return runs


def distill_and_evaluate(config: DistillConfig) -> tuple[list[StudentRun], Comparison | None]:
    """Do the same as `distill`; return also the evaluation, or None without one."""
    comparison = None
    with init_distributed(config.device) as (group, device):
        job = resolve_job(config, device, group)
        check_students(job)
        with contextlib.ExitStack() as locks:
            for directory in job.students.values() if group.is_first else ():
                locks.enter_context(artifact.locked(directory, wait=False))
            runs = train_students(job)
        trained = [run.directory for run in runs if run.is_trained]
        if config.evaluate_on is not None and trained and group.is_first:
            evaluation = EvaluateConfig(
                students=trained,
                labeled=config.evaluate_on,
                teacher=job.teacher,
                runs=config.runs,
                device=device,
                trust_builder=config.trust_builder,
            )
            comparison = evaluate(evaluation)
        group.wait()
    return runs, comparison


def check_students(job: TrainingJob) -> None:
    """Build each unfinished student once, so that a wrong one fails before its directory is made.

    A warning names a student that is larger than its teacher because of the modules that its
    method adds. Raises NetError as `build_method` does.
    """
    num_teacher = _num_parameters(job.teacher.net)
    for builder, directory in job.students.items():
        if artifact.is_done(directory):
            continue
        num_student = _num_parameters(build_method(job, builder).deployed())
        if num_student <= num_teacher:
            continue
        configs = method_class(job.method).smaller(job.config)
        others = {f"--set {words}": replace(job, config=c) for words, c in configs.items()}
        if not others:
            kd = plugins.find("distill.methods", "kd")
            others = {"--method kd": replace(job, method=kd, config=kd.Config())}
        sizes = {
            words: _num_parameters(build_method(other, builder).deployed())
            for words, other in others.items()
        }
        smaller = [f"{words} ({n / 1e6:.2f} M)" for words, n in sizes.items() if n <= num_teacher]
        if smaller:
            log.warning(
                "%s: with the modules that its method adds, this student has %.2f M parameters, "
                "more than its teacher (%.2f M). For a smaller one, use %s",
                builder, num_student / 1e6, num_teacher / 1e6, " or ".join(smaller),
            )  # fmt: skip


def _num_parameters(net: Net) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def train_students(job: TrainingJob) -> list[StudentRun]:
    """Train the unfinished students of a job; return the results of all, in the job's order."""
    learners = build_learners(job)
    runs = {run.name: run for run in train(build_setup(job, learners))} if learners else {}
    return [
        runs.get(name) or StudentRun(name, directory, "already", None)
        for name, directory in job.students.items()
    ]


def resolve_job(config: DistillConfig, device: str, group: ProcessGroup) -> TrainingJob:
    """Open and check all inputs of a configuration; return the training that it describes."""
    shards = _open_shards(config.shards or last_shards(config.runs))
    teacher = _open_teacher(config, shards, device)
    mix = None
    if config.mix is not None:
        mix = Mix(_open_shards(config.mix), config.mix_frac)
        mix.shards.check_teacher(teacher.card.digest)
    if config.evaluate_on is not None:
        open_parts(config.evaluate_on)  # reports a wrong path before the training
    method: ModuleType = plugins.find("distill.methods", config.method)
    preset = Preset(config=method.Config())
    if config.preset:
        preset = plugins.preset(method, config.preset)
        if preset.pair is not None and not config.students:
            config = replace(config, students=(preset.pair.student,))
        _check_pair(config, preset, teacher)
    num_images = len(split_heldout(shards.columns["key_hash"]).train)
    recipe = resolve_recipe(config, preset.recipe, num_images, mix)
    resolve_crop(recipe.crop, teacher.geometry.size)  # reports a crop that does not fit
    compiled = config.compile
    if compiled is None:
        num_images += len(mix.shards) if mix else 0
        num_views = recipe.views * num_images or recipe.steps * recipe.batch_size
        compiled = compile_pays(device, num_views)
    return TrainingJob(
        shards=shards,
        teacher=teacher,
        students=student_directories(config, shards),
        method=method,
        config=plugins.configure(method.Config, config.settings, **vars(preset.config)),
        recipe=replace(recipe, compiled=compiled),
        targets_root=config.runs / "targets",
        mix=mix,
        targets=config.targets,
        device=device,
        workers=config.workers,
        budget_bytes=None if config.memory_gib is None else int(config.memory_gib * 2**30),
        fresh=config.fresh,
        trust_builder=config.trust_builder,
        group=group,
    )


def _check_pair(config: DistillConfig, preset: Preset, teacher: Teacher) -> None:
    """Warn if a preset of a pair is used with other networks or other data."""
    if preset.pair is None:
        return
    card = teacher.card
    differences = preset.pair.differences(
        card.builder,
        split_builders(config.students),
        num_classes=len(card.classes),
        input_size=card.input_size,
    )
    if differences:
        log.warning(
            "--preset %s is meant for %s, but here %s. Its settings and its figure may not fit",
            config.preset, preset.pair, " and ".join(differences),
        )  # fmt: skip


def precompute_targets(config: TargetsConfig) -> Path:
    """Compute the missing targets of the teacher; return the directory of the cache.

    Raises ArtifactError if `verify` finds targets that differ, OSError if the disk is too small.

    Example: `precompute_targets(TargetsConfig(shards="runs/shards/demo", views=8))`
    """
    with init_distributed(config.device) as (group, device):
        shards = _open_shards(config.shards or last_shards(config.runs))
        teacher = _open_teacher(config, shards, device)
        compiled = config.compile
        if compiled is None:
            compiled = compile_pays(device, config.views * len(shards))
        builder = TargetBuilder(
            shards=shards,
            teacher=teacher,
            augmentation=Augmentation(
                size=teacher.geometry.size,
                seed=config.seed,
                color_jitter=config.color_jitter,
                crop=config.crop,
                crop_area=config.crop_area,
            ),
            kind=config.keep,
            top=config.top,
            device=device,
            compiled=compiled,
        )
        directory = build_target_cache(builder, config.views, config.runs / "targets", group)
        if config.verify and group.is_first:
            for line in verify_targets(builder, directory):
                log.info("%s", line)
    return directory


def _open_shards(shards: Shards | Path) -> Shards:
    return shards if isinstance(shards, Shards) else open_shards(shards)


def _open_teacher(config: DistillConfig | TargetsConfig, shards: Shards, device: str) -> Teacher:
    """Return the teacher that labeled the shards. Raises ArtifactError for another teacher."""
    if isinstance(config.teacher, Teacher):
        shards.check_teacher(config.teacher.card.digest)
        config.teacher.net.to(device)
        return config.teacher
    spec = None if config.teacher is None else str(config.teacher)
    return load_labeler(
        shards, spec, config.runs, device=device, trust_builder=config.trust_builder
    )
