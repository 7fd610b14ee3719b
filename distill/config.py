"""The options of `winnow distill` and `winnow targets`, and how defaults are resolved."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from distill.recipe import (
    CROP_AREA,
    LR_PER_128,
    TOP_LOGITS,
    Crop,
    Mix,
    Needs,
    Optimizer,
    Recipe,
    num_steps,
)
from indexes import artifact, plugins
from indexes.command.options import Option, RunConfig, Settings, flag_of
from indexes.models.builders import split_arguments
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards

EPOCHS = 30.0
SMALL_PIXELS = 64
SMALL_STUDENT, LARGE_STUDENT = "resnet8x4", "timm:mobilenetv3_small_050"


@dataclass(frozen=True, kw_only=True)
class DistillConfig(RunConfig):
    """Train students on curated shards. They learn from the teacher, never from a label.

    Students are saved to RUNS/students/SHARDS-METHOD-STUDENT. After Ctrl-C, run the same command
    again: training continues where it stopped. After a kill it continues from the last checkpoint;
    one is saved every minute. For several GPUs, run
    torchrun --nproc-per-node 8 -m winnow distill ...

    Example: winnow distill --student 'resnet8x4 timm:mobilenetv3_small_050' --eval /data/val
    """

    shards: Annotated[Shards | Path | None, Option(type=Path)] = None
    """Curated shards. Default: the last ones that `winnow select` wrote."""
    teacher: Annotated[Teacher | Path | str | None, Option(type=str)] = None
    """A teacher directory, or a name under RUNS/teachers. It must be the teacher that labeled the
    shards, which is also the default."""
    students: Annotated[Sequence[str], Option(flags=("--student",))] = ()
    """A student: resnet8x4 (see `winnow students`), timm:NAME or torchvision:NAME; arguments
    follow the name, as in timm:NAME:depth=6. Repeat, or separate by spaces: all students share
    one pass over the images. Default: the student of the preset, else resnet8x4 up to 64 pixels,
    and above that the mobilenetv3 of the example above."""
    method: str = "winnow"
    """winnow, kd, dist, dfnd, odsd (ODSD-style), eikd (EIKD-style), kd3, hidfd (see
    `winnow methods`), or your own .py file. winnow, kd3 and hidfd add a projector to the student,
    unless it is `--method winnow --set deploy=plain`; the others save it unchanged."""
    preset: str | None = None
    """A named configuration of the method and its training, such as cifar10_r34_r18 (see
    `winnow methods NAME`). Explicit options override the preset."""
    settings: Annotated[Settings, Option(flags=("--set",))] = ()
    """A setting of the method as key=value. Repeat, or separate by spaces."""
    recipe: Annotated[Settings, Option(flags=("--recipe",))] = ()
    """A setting of the training without an option of its own, as key=value: view_seed, top_logits,
    drop_at, warmup_frac, weight_decay, decay_norms, nesterov, max_grad_norm, crop or crop_area.
    Repeat, or separate by spaces."""
    mix: Annotated[Shards | Path | None, Option(type=Path)] = None
    """A second shard set of the same teacher, such as synthetic images beside real ones."""
    mix_frac: Annotated[float, Option(min=0.0, max=1.0)] = 0.5
    """Share of the --mix shards in every batch, in 0-1."""
    epochs: Annotated[float | None, Option(min=0.001)] = None
    """How often each image trains on average, in the whole training. With --mix, an epoch ends
    when every image of both sets was seen. Default: 30."""
    steps: Annotated[int | None, Option(min=1)] = None
    """Number of optimizer steps, instead of --epochs."""
    batch_size: Annotated[int | None, Option(min=4)] = None
    """Number of images in a batch. Default: 128."""
    lr: float | None = None
    """Peak learning rate. Default: 0.1 per 128 images in a batch."""
    optimizer: Optimizer | None = None
    """sgd or muon. Default: muon for the method winnow, sgd for the others."""
    views: Annotated[int, Option(min=0)] = 0
    """0: a fresh view at each visit; the teacher runs at every step. V: V fixed views of each
    image; teacher targets are computed once and cached for all later seeds and students."""
    targets: Path | None = None
    """A directory of cached targets from `winnow targets`. The student trains on its views."""
    color_jitter: Annotated[float | None, Option(min=0.0, max=1.0)] = None
    """Largest relative change of brightness, contrast and saturation in a view, in 0-1.
    Default: 0."""
    compile: Annotated[bool | None, Option(flags=("--compile/--no-compile",))] = None
    """Compile the teacher. Default: only on a CPU, from 500,000 views on."""
    accumulate: Annotated[int, Option(min=1)] = 1
    """Split each batch into this many parts, one after another, to save memory."""
    ema: Annotated[float, Option(min=0.0, max=0.99999)] = 0.0
    """Save a running mean of the weights with this decay, such as 0.999. 0 saves the last
    weights."""
    seed: int = 0
    """Seed of the initial weights, the order of the images and fresh views."""
    evaluate_on: Annotated[str | None, Option(flags=("--eval",))] = None
    """A labeled set for evaluation. It is read only after the last step."""
    out: Path | None = None
    """The student's directory, or the parent directory of several students. Default: under
    RUNS."""
    memory_gib: Annotated[float | None, Option(min=0.0)] = None
    """Keep decoded images on the device if they fit into this many GiB; else stream them. 0 always
    streams. Default: half of the free memory, on a CPU at most 4."""
    workers: Annotated[int | None, Option(min=0)] = None
    """Number of decoding processes of a stream. Default: one per core but one, at most 8."""
    fresh: bool = False
    """Delete an earlier training in the same directory and start again."""


@dataclass(frozen=True, kw_only=True)
class TargetsConfig(RunConfig):
    """Compute and cache the teacher's targets for V views of every image.

    All later students and seeds reuse them. They are written to RUNS/targets, where
    `winnow distill --views V` finds them; it also computes missing ones. A second call continues
    where the first stopped, or adds the missing views.

    Example: winnow targets --views 8 --verify
    """

    shards: Annotated[Shards | Path | None, Option(type=Path)] = None
    """Curated shards. Default: the last ones that `winnow select` wrote."""
    teacher: Annotated[Teacher | Path | str | None, Option(type=str)] = None
    """The teacher of the shards, if it is not under RUNS/teachers."""
    views: Annotated[int, Option(min=1)] = 4
    """Number of views of each image."""
    keep: Needs = "logits"
    """logits (enough for kd, dist, dfnd), features too (odsd, eikd), the last map (winnow, kd3,
    hidfd), or both last maps (winnow with a stage)."""
    top: Annotated[int, Option(min=1)] = TOP_LOGITS
    """Number of logits stored per target if there are more than 1,024 classes; the others are
    stored as one logsumexp. Give the number of classes to store all."""
    color_jitter: Annotated[float, Option(min=0.0, max=1.0)] = 0.0
    """Largest relative change of brightness, contrast and saturation in a view, in 0-1."""
    crop: Crop | None = None
    """pad or zeros: a crop of the image with a reflected or a zero margin, up to 64 pixels.
    resized: a random part of the image. Default: pad up to 64 pixels, resized above."""
    crop_area: Annotated[float, Option(min=0.001, max=1.0)] = CROP_AREA
    """Lowest share of the image's area in a resized crop, in 0-1."""
    compile: Annotated[bool | None, Option(flags=("--compile/--no-compile",))] = None
    """Compile the teacher. Default: only on a CPU, from 500,000 views on."""
    seed: int = 0
    """Seed of the views."""
    verify: bool = False
    """Compute a sample of the targets again and report the largest difference."""


def last_shards(runs: Path) -> Path:
    """Return the shards that `winnow select` wrote last; raises ValueError if there are none."""
    note = runs / "last-shards.json"
    if not note.is_file():
        raise ValueError(
            f"--shards is not given, and {note} does not exist: run `winnow select` first, or give "
            "--shards"
        )
    return Path(str(artifact.read_json(note)["shards"]))


def resolve_recipe(
    config: DistillConfig, preset: Mapping[str, Any], num_images: int, mix: Mix | None = None
) -> Recipe:
    """Return the Recipe: explicit options, then the fields of the preset, then defaults.

    Options of the command are explicit, and the settings of `recipe`, too. Raises BadSetting for a
    setting that is unknown, or that has an option of its own.
    """
    names = ("epochs", "steps", "batch_size", "lr", "optimizer")
    explicit = {name: getattr(config, name) for name in names}
    explicit = {name: value for name, value in explicit.items() if value is not None}
    explicit |= {"seed": config.seed, "accumulate": config.accumulate, "ema": config.ema}
    explicit |= view_settings(config.targets, config.views, config.color_jitter)
    explicit |= recipe_settings(config.recipe)
    return make_recipe(preset, explicit, num_images, mix)


def recipe_names() -> list[str]:
    """Return the fields of Recipe that have no option of their own, in their order.

    Example:
        >>> recipe_names()[:3]
        ['view_seed', 'top_logits', 'drop_at']
    """
    options = {field.name for field in fields(DistillConfig)} | {"compiled"}  # --compile
    return [field.name for field in fields(Recipe) if field.name not in options]


def recipe_settings(settings: Settings) -> dict[str, Any]:
    """Return the fields of a Recipe that the option --recipe sets.

    Raises BadSetting for a setting that is unknown, or that has an option of its own.

    Example:
        >>> recipe_settings(["drop_at=0.5,0.75 nesterov=no"])
        {'drop_at': (0.5, 0.75), 'nesterov': False}
    """
    pairs = plugins.split_pairs(settings, "--recipe")
    options = {field.name for field in fields(DistillConfig)}
    for name in pairs:
        option = "compile" if name == "compiled" else name
        if option in options:
            raise plugins.BadSetting(
                f"--recipe takes settings without an option of their own: give {flag_of(option)} "
                f"instead of {name}"
            )
    return plugins.parse(Recipe, pairs, recipe_names())


def view_settings(targets: Path | None, views: int, color_jitter: float | None) -> dict[str, Any]:
    """Return the Recipe's fields about views; cached `targets` determine them if given.

    Raises ArtifactError if `color_jitter` differs from that of the targets.
    """
    explicit: dict[str, Any] = {"views": views}
    if targets is None:
        return explicit | ({} if color_jitter is None else {"color_jitter": color_jitter})
    card = artifact.read_card(targets, "targets")
    key = card["key"]
    if color_jitter not in (None, key["color_jitter"]):
        raise artifact.ArtifactError(
            f"{targets} holds targets of views with color jitter {key['color_jitter']}, not "
            f"{color_jitter}: leave --color-jitter out, or make other targets"
        )
    return {
        "views": views or card["views"],
        "color_jitter": key["color_jitter"],
        "view_seed": key["seed"],
        "top_logits": key["top"],
        "crop": key.get("crop"),  # an older card lacks these two
        "crop_area": key.get("crop_area", CROP_AREA),
    }


def make_recipe(
    preset: Mapping[str, Any],
    explicit: Mapping[str, Any],
    num_images: int,
    mix: Mix | None = None,
) -> Recipe:
    """Return the Recipe of a preset's fields and explicit ones, which win; 30 epochs by default.

    `num_images` are the training images of the first set.
    """
    fields = {**preset, **explicit}
    if "epochs" in explicit and "steps" not in explicit:
        fields.pop("steps", None)
    epochs = fields.pop("epochs", EPOCHS)
    batch_size = fields.setdefault("batch_size", Recipe.batch_size)
    fields.setdefault("lr", LR_PER_128 * batch_size / 128)
    if "steps" not in fields:
        parts = fields.get("accumulate", Recipe.accumulate)
        fields["steps"] = num_steps(epochs, num_images, batch_size, mix, parts)
    return Recipe(**fields)


def split_builders(words: Sequence[str]) -> list[str]:
    """Split builders at spaces and commas, but not within brackets.

    Example:
        >>> split_builders(["resnet8,resnet20 timm:x:size=(8,8)"])
        ['resnet8', 'resnet20', 'timm:x:size=(8,8)']
    """
    return [word for word in re.split(r"[\s,]+(?![^\[(]*[\])])", " ".join(words)) if word]


def student_directories(config: DistillConfig, shards: Shards) -> dict[str, Path]:
    """Map each builder to its directory: OUT, OUT/STUDENT, or RUNS/students/SHARDS-METHOD-...

    Raises ValueError if two builders would get the same directory.
    """
    small = shards.input_size <= SMALL_PIXELS
    builders = split_builders(config.students) or [SMALL_STUDENT if small else LARGE_STUDENT]
    several = len(set(builders)) > 1
    words = [shards.directory.resolve().name, Path(config.method).stem]
    words += [config.preset] if config.preset else []
    words += ["mix"] if config.mix else []
    directories = {}
    for builder in builders:
        short = _short_name(builder)
        if config.out:
            directories[builder] = config.out / short if several else config.out
            continue
        seed = [f"seed{config.seed}"] if config.seed > 0 else []
        directories[builder] = config.runs / "students" / "-".join([*words, short, *seed])
    if len(set(directories.values())) < len(directories):
        raise ValueError(
            f"{', '.join(builders)} would share a directory: train them one at a time with --out"
        )
    return directories


def _short_name(builder: str) -> str:
    plain, arguments = split_arguments(builder)
    words = plain.rpartition(":")[2], *(f"{key}{value}" for key, value in arguments.items())
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(words))
