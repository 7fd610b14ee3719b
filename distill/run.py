"""What the commands do once their options are read; imports torch, so `cli` imports it late."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from distill import train as training
from distill.config import (
    last_shards,
    make_recipe,
    split_builders,
    student_directories,
    view_settings,
)
from distill.data.augment import Augmentation
from distill.data.sampler import split_heldout
from distill.distributed import ProcessGroup
from distill.evaluation import report
from distill.evaluation.config import EvaluateConfig
from distill.evaluation.run import evaluate
from distill.method import Needs, Preset
from distill.targets.precompute import (
    TargetBuilder,
    compile_pays,
    precompute_targets,
    verify_targets,
)
from indexes import artifact, plugins
from indexes.models.teacher import WEIGHTS, load_labeler
from indexes.shards.reader import open_shards
from indexes.sources.spec import open_parts

SMALL_PIXELS = 64
SMALL_STUDENT, LARGE_STUDENT = "resnet8x4", "timm:mobilenetv3_small_050"


def distill_students(
    *,
    shards: Path | None,
    teacher: str | None,
    students: Sequence[str],
    method: str,
    preset: str | None,
    settings: Sequence[str],
    mix: Path | None,
    mix_frac: float,
    epochs: float | None,
    steps: int | None,
    batch_size: int | None,
    lr: float | None,
    optimizer: str | None,
    views: int,
    targets: Path | None,
    color: float | None,
    compiled: bool | None,
    accumulate: int,
    ema: float,
    seed: int,
    evaluate_on: str | None,
    runs: Path,
    out: Path | None,
    device: str,
    memory_gib: float | None,
    workers: int | None,
    fresh: bool,
    trust_builder: bool,
    group: ProcessGroup,
) -> int:
    """Trains, evaluates and prints a line per student; the number of those that were stopped."""
    opened = open_shards(shards or last_shards(runs))
    master = load_labeler(opened, teacher, runs, device=device, trust_builder=trust_builder)
    mixed = None
    if mix is not None:
        mixed = training.Mix(open_shards(mix, teacher_digest=master.card.digest), mix_frac)
    if evaluate_on is not None:
        open_parts(evaluate_on)  # a slip in the path is told now and not after the training
    module = plugins.find("distill.methods", method)
    known = plugins.preset(module, preset) if preset else Preset(config=module.Config())
    config = plugins.configure(module.Config, settings, **vars(known.config))
    small = opened.input_size <= SMALL_PIXELS
    builders = split_builders(students) or [SMALL_STUDENT if small else LARGE_STUDENT]
    said = dict(epochs=epochs, steps=steps, batch_size=batch_size, lr=lr, optimizer=optimizer)
    given = {name: value for name, value in said.items() if value is not None}
    num_images = len(split_heldout(opened.columns["key_hash"]).train) + (
        len(mixed.shards) if mixed else 0
    )
    given |= {"seed": seed, "accumulate": accumulate, "ema": ema}
    given |= view_settings(targets, views, color)
    recipe = make_recipe(known.recipe, given, num_images)
    num_asked = recipe.views * num_images or recipe.steps * recipe.batch_size
    if compiled is None:
        compiled = compile_pays(device, num_asked)
    recipe = replace(recipe, compiled=compiled)
    name = "-".join([Path(method).stem, *([preset] if preset else []), *(["mix"] if mix else [])])
    places = student_directories(builders, opened, name, seed, runs, out)
    with contextlib.ExitStack() as held:
        for directory in places.values() if group.is_first else ():
            held.enter_context(artifact.locked(directory, wait=False))
        outcomes = training.train(
            opened,
            master,
            places,
            module,
            config,
            recipe,
            mix=mixed,
            device=device,
            targets_in=runs / "targets",
            fresh=fresh,
            workers=workers,
            budget_bytes=None if memory_gib is None else int(memory_gib * 2**30),
            trust_builder=trust_builder,
            kept_targets=targets,
            group=group,
        )
    whole = [one.directory for one in outcomes if one.is_student]
    if group.is_first:
        for one in outcomes:
            _tell(one)
        if evaluate_on is not None and whole:
            comparison = evaluate(
                EvaluateConfig(
                    students=whole,
                    labeled=evaluate_on,
                    teacher=master,
                    runs=runs,
                    device=device,
                    trust_builder=trust_builder,
                )
            )
            for line in report.lines(comparison):
                print(line, flush=True)
    group.wait()
    return len(outcomes) - len(whole)


def make_targets(
    *,
    shards: Path | None,
    teacher: str | None,
    views: int,
    keep: Needs,
    top: int,
    color: float,
    compiled: bool | None,
    seed: int,
    verify: bool,
    runs: Path,
    device: str,
    trust_builder: bool,
    group: ProcessGroup,
) -> None:
    """Asks the teacher about the views of every image that are not answered yet; says where."""
    opened = open_shards(shards or last_shards(runs))
    master = load_labeler(opened, teacher, runs, device=device, trust_builder=trust_builder)
    look = Augmentation(size=master.geometry.size, seed=seed, color=color)
    if compiled is None:
        compiled = compile_pays(device, views * len(opened))
    who = TargetBuilder(
        shards=opened,
        teacher=master,
        look=look,
        kind=keep,
        top=top,
        device=device,
        compiled=compiled,
    )
    place = precompute_targets(who, views, runs / "targets", group)
    if verify and group.is_first:
        for line in verify_targets(who, place):
            print(line)
    card = artifact.read_card(place, "targets")
    size = sum(file.stat().st_size for file in place.glob("*.npy"))
    print(
        f"targets: {place}: {keep} of {card['views']} views of {len(opened):,} images, "
        f"{size / 1e6:.1f} MB; train with --targets {place} or --views {card['views']}"
    )


def _tell(one: training.Outcome) -> None:
    text = {"finished": "trained", "already": "was finished before"}
    line = f"{one.student}: {text.get(one.state, one.state)}"
    if one.is_student:
        line += f", {(one.directory / WEIGHTS).stat().st_size / 1e6:.2f} MB"
    if one.agreement is not None and one.state == "finished":
        line += f", agrees with its teacher on {100 * one.agreement:.1f} % of held-out images"
    print(f"{line}: {one.directory}", flush=True)
