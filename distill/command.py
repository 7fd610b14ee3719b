"""What the commands do once their options are read; imports torch, so `cli` imports it late."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill import asking
from distill import train as training
from distill.evaluation import report, standings
from distill.method import Needs, Preset
from distill.order import split
from distill.ranks import Ranks
from distill.recipe import LR_PER_128, Recipe
from distill.views import Look
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
    targets: Path | None,
    colour: float | None,
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
    ranks: Ranks,
) -> int:
    """Trains, evaluates and prints a line per student; the number of those that were stopped."""
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
    given |= {"seed": seed, "accumulate": accumulate, "ema": ema}
    given |= how_views_look(targets, views, colour)
    recipe = recipe_of(known.recipe, given, num_images)
    num_asked = recipe.views * num_images or recipe.steps * recipe.batch_size
    if compiled is None:
        compiled = asking.compiling_pays(device, num_asked)
    recipe = replace(recipe, compiled=compiled)
    name = "-".join([Path(method).stem, *([preset] if preset else []), *(["mix"] if mix else [])])
    places = directories(builders, opened, name, seed, runs, out)
    with contextlib.ExitStack() as held:
        for directory in places.values() if ranks.is_first else ():
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
            budget_bytes=None if memory_gib is None else int(memory_gib * 2**30),
            trust_builder=trust_builder,
            kept_targets=targets,
            ranks=ranks,
        )
    whole = [one.directory for one in outcomes if one.is_student]
    if ranks.is_first:
        for one in outcomes:
            _tell(one)
        if evaluate_on is not None and whole:
            report.tell(
                whole, evaluate_on, master, runs=runs, device=device, trust_builder=trust_builder
            )
    ranks.wait()
    return len(outcomes) - len(whole)


def how_views_look(targets: Path | None, views: int, colour: float | None) -> dict[str, Any]:
    """The Recipe's fields of how views look: as they were for `targets`, where those are given.

    Raises ArtefactError where both are said and differ.
    """
    said = {"views": views} | ({} if colour is None else {"colour": colour})
    if targets is None:
        return said
    card = artefact.read_card(targets, "targets")
    key = card["key"]
    if colour not in (None, key["colour"]):
        raise artefact.ArtefactError(
            f"{targets} holds answers to views of colour {key['colour']}, not {colour}"
        )
    return {
        "views": views or card["views"],
        "colour": key["colour"],
        "view_seed": key["seed"],
        "top_logits": key["top"],
    }


def make_targets(
    *,
    shards: Path | None,
    teacher: str | None,
    views: int,
    keep: Needs,
    top: int,
    colour: float,
    compiled: bool | None,
    seed: int,
    verify: bool,
    runs: Path,
    device: str,
    trust_builder: bool,
    ranks: Ranks,
) -> None:
    """Asks the teacher about the views of every image that are not answered yet; says where."""
    opened = open_shards(shards or last_shards(runs))
    master = teachers.open_labeller(
        opened, teacher, runs, device=device, trust_builder=trust_builder
    )
    look = Look(size=master.geometry.size, seed=seed, colour=colour)
    if compiled is None:
        compiled = asking.compiling_pays(device, views * len(opened))
    who = asking.Asking(
        shards=opened,
        teacher=master,
        look=look,
        kind=keep,
        top=top,
        device=device,
        compiled=compiled,
    )
    place = asking.make(who, views, runs / "targets", ranks)
    if verify and ranks.is_first:
        for line in asking.verify(who, place):
            print(line)
    card = artefact.read_card(place, "targets")
    size = sum(file.stat().st_size for file in place.glob("*.npy"))
    print(
        f"targets: {place}: {keep} of {card['views']} views of {len(opened):,} images, "
        f"{size / 1e6:.1f} MB; train with --targets {place} or --views {card['views']}"
    )


def _tell(one: training.Outcome) -> None:
    text = {"finished": "trained", "already": "was finished before"}
    line = f"{one.student}: {text.get(one.state, one.state)}"
    if one.is_student:
        line += f", {(one.directory / teachers.WEIGHTS).stat().st_size / 1e6:.2f} MB"
    if one.agreement is not None and one.state == "finished":
        line += f", agrees with its teacher on {100 * one.agreement:.1f} % of held-out images"
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


def evaluate(
    students: Sequence[str],
    labelled: str,
    teacher: str | None,
    runs: Path,
    out: Path | None,
    device: str,
    trust_builder: bool,
) -> None:
    """Prints and writes how good students or teachers are and what they cost."""
    device = devices.choose(device)
    directories = standings.find_all(students, runs)
    master = (
        teachers.open(teachers.resolve(teacher, runs), device=device, trust_builder=trust_builder)
        if teacher is not None
        else None
    )
    report.tell(
        directories,
        labelled,
        master,
        runs=runs,
        out=out,
        device=device,
        trust_builder=trust_builder,
    )
