"""What the commands do once their options are read; imports torch, so `cli` imports it late."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill import evaluate as evaluation
from distill import train as training
from distill.method import Preset
from distill.order import split
from distill.recipe import LR_PER_128, Recipe
from indexes import artefact, devices, names, nets, sources, teachers
from indexes.shards import Shards, open_shards

EPOCHS = 30.0
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
    seed: int,
    evaluate_on: str | None,
    runs: Path,
    out: Path | None,
    device: str,
    workers: int | None,
    fresh: bool,
    trust_builder: bool,
) -> int:
    """Trains, evaluates and prints a line per student; the number of students that diverged."""
    device = devices.choose(device)
    opened = open_shards(shards or last_shards(runs))
    master = teachers.open_labeller(
        opened, teacher, runs, device=device, trust_builder=trust_builder
    )
    mixed = None
    if mix is not None:
        mixed = training.Mix(open_shards(mix, teacher_digest=master.card.digest), mix_frac)
    if evaluate_on is not None:
        sources.parts(evaluate_on)  # a slip in the path is told now and not after the training
    module = names.find("distill.methods", method)
    known = names.preset(module, preset) if preset else Preset(config=module.Config())
    config = names.configure(module.Config, settings, **vars(known.config))
    small = opened.input_size <= SMALL_PIXELS
    builders = builders_of(students) or [SMALL_STUDENT if small else LARGE_STUDENT]
    said = dict(epochs=epochs, steps=steps, batch_size=batch_size, lr=lr, optimizer=optimizer)
    given = {name: value for name, value in said.items() if value is not None}
    num_images = len(split(opened.columns["key_hash"]).train) + (len(mixed.shards) if mixed else 0)
    recipe = recipe_of(known.recipe, {**given, "views": views, "seed": seed}, num_images)
    name = "-".join([Path(method).stem, *([preset] if preset else []), *(["mix"] if mix else [])])
    places = directories(builders, opened, name, seed, runs, out)
    with contextlib.ExitStack() as held:
        for directory in places.values():
            held.enter_context(artefact.locked(directory, wait=False))
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
            trust_builder=trust_builder,
        )
    for one in outcomes:
        _tell(one, evaluate_on, master, device, trust_builder)
    return sum(one.state == "diverged" for one in outcomes)


def _tell(
    one: training.Outcome,
    evaluate_on: str | None,
    teacher: teachers.Teacher,
    device: str,
    trust_builder: bool,
) -> None:
    text = {"finished": "trained", "already": "was finished before", "diverged": "diverged"}
    line = f"{one.student}: {text[one.state]}"
    if one.state != "diverged":
        line += f", {(one.directory / teachers.WEIGHTS).stat().st_size / 1e6:.2f} MB"
    if one.agreement is not None and one.state == "finished":
        line += f", agrees with its teacher on {100 * one.agreement:.1f} % of held-out images"
    if evaluate_on is not None and one.state != "diverged":
        student = teachers.open(one.directory, device=device, trust_builder=trust_builder)
        result = evaluation.evaluate(student, evaluate_on, teacher=teacher, device=device)
        write_result(one.directory / "evaluation.json", evaluate_on, student, result)
        line += f", top-1 {100 * result.top1:.2f} % of {result.num_images:,}"
    print(f"{line}: {one.directory}", flush=True)


def last_shards(runs: Path) -> Path:
    """What `winnow select` wrote last; ValueError when it has not yet."""
    note = runs / "last-shards.json"
    if not note.is_file():
        raise ValueError(
            f"no --shards given and {note} is not there: run `winnow select` first, or name shards"
        )
    return Path(str(artefact.read_json(note)["shards"]))


def builders_of(words: Sequence[str]) -> list[str]:
    """Builders separated by spaces or commas, but for commas within brackets."""
    return [word for word in re.split(r"[\s,]+(?![^\[(]*[\])])", " ".join(words)) if word]


def recipe_of(known: Mapping[str, Any], given: Mapping[str, Any], num_images: int) -> Recipe:
    """The Recipe of a preset's fields and those given, which win; where no steps, 30 epochs."""
    fields = {**known, **given}
    if "epochs" in given and "steps" not in given:
        fields.pop("steps", None)
    epochs = fields.pop("epochs", EPOCHS)
    batch_size = fields.setdefault("batch_size", Recipe.batch_size)
    fields.setdefault("lr", LR_PER_128 * batch_size / 128)
    fields.setdefault("steps", max(1, math.ceil(epochs * num_images / batch_size)))
    return Recipe(**fields)


def directories(
    builders: Sequence[str], shards: Shards, method: str, seed: int, runs: Path, out: Path | None
) -> dict[str, Path]:
    """Builder -> directory: OUT, or OUT/STUDENT for several, or RUNS/students/SHARDS-METHOD-..."""
    places = {}
    for builder in builders:
        plain, arguments = nets.split_arguments(builder)
        words = plain.rpartition(":")[2], *(f"{key}{value}" for key, value in arguments.items())
        short = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(words))
        name = f"{shards.directory.resolve().name}-{method}-{short}" + (f"-seed{seed}" * (seed > 0))
        several = len(set(builders)) > 1
        places[builder] = (out / short if several else out) if out else runs / "students" / name
    if len(set(places.values())) < len(places):
        raise ValueError(f"{', '.join(builders)} would share a directory: train them one by one")
    return places


def place_of(student: str, runs: Path) -> Path:
    """The directory of a student or a teacher: a path, or a name under RUNS.

    Raises TeacherError, which names the nearest that there is.
    """
    shelf = runs / "students"
    if artefact.is_done(shelf / student):
        return shelf / student
    try:
        return teachers.resolve(student, runs)
    except teachers.TeacherError as error:
        known = [path.parent.name for path in shelf.glob(f"*/{artefact.CARD}")]
        hint = names.nearest(student, known)
        if not hint:
            raise
        raise teachers.TeacherError(f"no student {student!r} in {shelf}.{hint}") from error


def evaluate(
    student: str,
    labelled: str,
    teacher: str | None,
    runs: Path,
    out: Path | None,
    device: str,
    trust_builder: bool,
) -> None:
    """Prints and writes the accuracy of a student or a teacher."""
    device = devices.choose(device)
    place = place_of(student, runs)
    net = teachers.open(place, device=device, trust_builder=trust_builder)
    master = (
        teachers.open(teachers.resolve(teacher, runs), device=device, trust_builder=trust_builder)
        if teacher is not None
        else None
    )
    result = evaluation.evaluate(net, labelled, teacher=master, device=device)
    write_result(out or place / "evaluation.json", labelled, net, result)
    print(f"{place} on {labelled}: {result.num_images:,} images, top-1 {100 * result.top1:.2f} %")
    if result.top5 is not None:
        print(f"top-5 {100 * result.top5:.2f} %")
    if result.agreement is not None:
        print(f"agreement with the teacher {100 * result.agreement:.2f} %")
    known = sorted((value, name) for name, value in result.per_class.items() if value is not None)
    print("weakest: " + ", ".join(f"{name} {100 * value:.1f} %" for value, name in known[:5]))
    for reason, count in result.dropped.items():
        print(f"dropped: {count:,} {reason}")


def write_result(
    path: Path, labelled: str, student: teachers.Teacher, result: evaluation.Result
) -> None:
    """The evaluation as JSON."""
    body = {"labelled": labelled, "student_digest": student.card.digest, **asdict(result)}
    artefact.write_json(path, body)
