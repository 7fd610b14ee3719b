"""The options of `winnow distill` and `winnow targets`, and what they resolve to."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from distill.recipe import LR_PER_128, TOP_LOGITS, Needs, Optimizer, Recipe
from indexes import artifact
from indexes.command.options import Option, RunConfig, Settings
from indexes.models.builders import split_arguments
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards

EPOCHS = 30.0
SMALL_PIXELS = 64
SMALL_STUDENT, LARGE_STUDENT = "resnet8x4", "timm:mobilenetv3_small_050"


@dataclass(frozen=True, kw_only=True)
class DistillConfig(RunConfig):
    """Train students on curated shards: they learn from the teacher, never from a label.

    Saves to RUNS/students/SHARDS-METHOD-STUDENT. After Ctrl-C run the same command again and it
    goes on where it stopped; after a kill, from its last checkpoint (one a minute). Several GPUs
    train together as torchrun --nproc-per-node 8 -m winnow distill ...

    Example: winnow distill --student 'resnet8x4 timm:mobilenetv3_small_050' --eval /data/val
    """

    shards: Annotated[Shards | Path | None, Option(type=Path)] = None
    """Curated shards. Default: the last ones that `winnow select` wrote."""
    teacher: Annotated[Teacher | Path | str | None, Option(type=str)] = None
    """A teacher directory, or a name under RUNS/teachers. Default: the one that the shards name;
    another one is refused."""
    students: Annotated[Sequence[str], Option(flags=("--student",))] = ()
    """A student: resnet8x4 (see `winnow students`), timm:NAME, torchvision:NAME, with arguments
    behind it, as in timm:NAME:patch_size=4. Repeat, or separate by spaces: all are fed by one pass
    over the images. Default: resnet8x4 up to 64 pixels, timm:mobilenetv3_small_050 above."""
    method: str = "winnow"
    """winnow, kd, dfnd, odsd, eikd, kd3, hidfd (see `winnow methods`), or your own .py file.
    winnow, kd3 and hidfd save the student with a projector: kd leaves it as it is."""
    preset: str | None = None
    """A known setting of the method and its training, as cifar10_r34_r18 (see `winnow methods`);
    explicit options override the preset."""
    settings: Annotated[Settings, Option(flags=("--set",))] = ()
    """A setting of the method, key=value; repeat or space-separate."""
    mix: Annotated[Shards | Path | None, Option(type=Path)] = None
    """More shards, of the same teacher: synthetic ones beside real ones."""
    mix_frac: Annotated[float, Option(min=0.0, max=1.0)] = 0.5
    """The share of the --mix shards in every batch."""
    epochs: Annotated[float | None, Option(min=0.001)] = None
    """How often each image is seen, in views. Default: 30."""
    steps: Annotated[int | None, Option(min=1)] = None
    """Steps of the optimizer, instead of --epochs."""
    batch_size: Annotated[int | None, Option(min=4)] = None
    """Views in a batch. Default: 128."""
    lr: float | None = None
    """Peak learning rate. Default: 0.1 per 128 in a batch."""
    optimizer: Optimizer | None = None
    """sgd or muon. Default: the method's; muon for winnow, sgd elsewhere."""
    views: Annotated[int, Option(min=0)] = 0
    """0: a fresh view at each visit, the teacher runs at each step. V: V fixed views of each image;
    the teacher's targets are computed once, for every later seed and student."""
    targets: Path | None = None
    """Targets that `winnow targets` cached; the student trains on their views."""
    color_jitter: Annotated[float | None, Option(min=0.0, max=1.0)] = None
    """Views vary in brightness, contrast and saturation by so much. Default: 0."""
    compile: Annotated[bool | None, Option(flags=("--compile/--no-compile",))] = None
    """Compile the teacher's forward. Default: on a CPU, for more than 500,000 views."""
    accumulate: Annotated[int, Option(min=1)] = 1
    """Parts that a batch is taken in, to save memory."""
    ema: Annotated[float, Option(min=0.0, max=0.99999)] = 0.0
    """Save a running mean of the weights with this decay: 0.999."""
    seed: int = 0
    """Initial weights, order and fresh views."""
    evaluate_on: Annotated[str | None, Option(flags=("--eval",))] = None
    """A labeled set; read only after the last step."""
    out: Path | None = None
    """The student's directory (of several: their parent). Default: under RUNS."""
    memory_gib: Annotated[float | None, Option(min=0.0)] = None
    """Images stay decoded on the device where they fit so many GiB, else they are streamed; 0:
    always. Default: half of its free memory, on a CPU at most 4."""
    workers: Annotated[int | None, Option(min=0)] = None
    """Decoding processes of a stream. Default: a core each, up to 8."""
    fresh: bool = False
    """Forget an earlier training in the same directory."""


@dataclass(frozen=True, kw_only=True)
class TargetsConfig(RunConfig):
    """Compute the teacher's targets for V views of every image, for all students and seeds to come.

    Written to RUNS/targets; `winnow distill --views V` finds them (and computes what is missing).
    A second call goes on where the first stopped, or adds the views that are missing.

    Example: winnow targets --views 8 --verify
    """

    shards: Annotated[Shards | Path | None, Option(type=Path)] = None
    """Curated shards. Default: the last ones that `winnow select` wrote."""
    teacher: Annotated[Teacher | Path | str | None, Option(type=str)] = None
    """Their teacher, if it is not under RUNS/teachers."""
    views: Annotated[int, Option(min=1)] = 4
    """Views of each image."""
    keep: Needs = "logits"
    """logits (kd, dfnd), features (odsd, eikd) or the whole last map (winnow, kd3, hidfd) beside
    them."""
    top: Annotated[int, Option(min=1)] = TOP_LOGITS
    """Logits stored of a target of more than 1,024 classes; the others are stored as their
    logsumexp. As many as there are classes: all."""
    color_jitter: Annotated[float, Option(min=0.0, max=1.0)] = 0.0
    """As --color-jitter of `winnow distill`."""
    compile: Annotated[bool | None, Option(flags=("--compile/--no-compile",))] = None
    """Compile the teacher's forward. Default: on a CPU, for more than 500,000 views."""
    seed: int = 0
    """Draws the views."""
    verify: bool = False
    """Compute a sample again; report the largest difference."""


def last_shards(runs: Path) -> Path:
    """The shards that `winnow select` wrote last; ValueError when it has not yet."""
    note = runs / "last-shards.json"
    if not note.is_file():
        raise ValueError(
            f"no --shards given and {note} is not there: run `winnow select` first, or name shards"
        )
    return Path(str(artifact.read_json(note)["shards"]))


def resolve_recipe(config: DistillConfig, preset: Mapping[str, Any], num_images: int) -> Recipe:
    """The Recipe of a configuration: explicit options, then the preset's fields, then defaults."""
    names = ("epochs", "steps", "batch_size", "lr", "optimizer")
    explicit = {name: getattr(config, name) for name in names}
    explicit = {name: value for name, value in explicit.items() if value is not None}
    explicit |= {"seed": config.seed, "accumulate": config.accumulate, "ema": config.ema}
    explicit |= view_settings(config.targets, config.views, config.color_jitter)
    return make_recipe(preset, explicit, num_images)


def view_settings(targets: Path | None, views: int, color_jitter: float | None) -> dict[str, Any]:
    """The Recipe's fields of how views look: those of the cached `targets`, where these are given.

    Raises ArtifactError where `color_jitter` is another one than theirs.
    """
    explicit: dict[str, Any] = {"views": views}
    if targets is None:
        return explicit | ({} if color_jitter is None else {"color_jitter": color_jitter})
    card = artifact.read_card(targets, "targets")
    key = card["key"]
    if color_jitter not in (None, key["color_jitter"]):
        raise artifact.ArtifactError(
            f"{targets} holds targets of views of color jitter {key['color_jitter']}, not "
            f"{color_jitter}"
        )
    return {
        "views": views or card["views"],
        "color_jitter": key["color_jitter"],
        "view_seed": key["seed"],
        "top_logits": key["top"],
    }


def make_recipe(preset: Mapping[str, Any], explicit: Mapping[str, Any], num_images: int) -> Recipe:
    """The Recipe of a preset's fields and explicit ones, which win; without steps, 30 epochs."""
    fields = {**preset, **explicit}
    if "epochs" in explicit and "steps" not in explicit:
        fields.pop("steps", None)
    epochs = fields.pop("epochs", EPOCHS)
    batch_size = fields.setdefault("batch_size", Recipe.batch_size)
    fields.setdefault("lr", LR_PER_128 * batch_size / 128)
    fields.setdefault("steps", max(1, math.ceil(epochs * num_images / batch_size)))
    return Recipe(**fields)


def split_builders(words: Sequence[str]) -> list[str]:
    """Builders separated by spaces or commas, but for commas within brackets."""
    return [word for word in re.split(r"[\s,]+(?![^\[(]*[\])])", " ".join(words)) if word]


def student_directories(config: DistillConfig, shards: Shards) -> dict[str, Path]:
    """Builder -> directory: OUT, or OUT/STUDENT for several, or RUNS/students/SHARDS-METHOD-..."""
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
        raise ValueError(f"{', '.join(builders)} would share a directory: train them one by one")
    return directories


def _short_name(builder: str) -> str:
    plain, arguments = split_arguments(builder)
    words = plain.rpartition(":")[2], *(f"{key}{value}" for key, value in arguments.items())
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(words))
