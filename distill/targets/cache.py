"""The teacher's targets for each view: computed online at every step, or read from a cache.

A view is a function of (seed, key, number). The cached target of view v of an image therefore
belongs to exactly the pixels that a student sees as view v; the batch, the student and its seed
play no part. With `views = 0`, every visit is a fresh view and the teacher runs at each step. With
V views, an image has V fixed views, which are visited in turn, and `distill.targets.precompute`
writes their targets into an artifact.

The artifact is a directory. Its file `view-v.logits.npy` holds the logits of view v, [N, C]
float16. If there are more than FULL_CLASSES classes, it holds only the K largest, [N, K]; then
`view-v.classes.npy` holds their classes, [N, K] int32, and `view-v.rest.npy` the logsumexp of the
others, [N] float32. Features or maps, if cached, are in `view-v.features.npy`, [N, D] or
[N, D, h, w] float16; the map of the stage before is in `view-v.stage.npy`. N images of a shard
set, in its order; B images of a step, C classes, D features, h and w the sides of a map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distill.data import augment
from distill.data.loader import ViewBatch
from distill.data.sampler import Rows
from distill.recipe import CROP_AREA, Crop, Needs
from distill.targets.fast_teacher import TeacherFunction
from indexes import artifact, devices
from indexes.artifact import ArtifactError
from indexes.logits import to_half
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards

# Up to this number of classes, every logit is stored. At a temperature of 4, the tail of 1,000
# classes matters: with the 50 largest logits and the logsumexp of the others, a loss is 10 % off.
# OURS
FULL_CLASSES = 1024
KINDS: tuple[Needs, ...] = ("logits", "features", "map", "maps")  # each includes those before it

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TeacherTargets:
    """Logits [B, C] and, if needed, features [B, D] or map [B, D, h, w], stage [B, M, h', w']."""

    logits_BC: Tensor
    features: Tensor | None = None
    stage: Tensor | None = None


class Targets(Protocol):
    """A source of the targets of a step."""

    def __call__(self, views: ViewBatch) -> TeacherTargets:
        """Return the teacher's targets for the views of a step."""


class OnlineTargets:
    """Targets that the teacher computes at every step."""

    def __init__(self, teacher: TeacherFunction) -> None:
        self.teacher = teacher

    def __call__(self, views: ViewBatch) -> TeacherTargets:
        """See Targets. They are rounded as in a cache, so that both train the same student."""
        logits_BC, *others = self.teacher(views.pixels)
        rounded = [None if other is None else to_half(other).float() for other in others]
        return TeacherTargets(to_half(logits_BC).float(), *rounded)


@dataclass(frozen=True, kw_only=True)
class TargetKey:
    """The inputs that cached targets depend on, and their kind; equal keys mean equal caches."""

    shards: str
    """The digest of the shards' card."""
    teacher: str
    """The digest of the teacher."""
    seed: int
    color_jitter: float
    view_version: int
    kind: Needs
    top: int
    """Number of logits stored per target: K, or C for all of them."""
    crop: Crop | None = None
    """The crop of the views, if it is not the default of their size."""
    crop_area: float = CROP_AREA
    """The lowest area of resized crops, in 0-1; the default for other crops."""

    @property
    def digest(self) -> str:
        """The sha256 (hex) of the key. Default crops do not count, so older caches are found."""
        default = {"crop": None, "crop_area": CROP_AREA}.items()
        return artifact.digest(dict(item for item in asdict(self).items() if item not in default))


def target_key(
    shards: Shards, teacher: Teacher, augmentation: augment.Augmentation, kind: Needs, top: int
) -> TargetKey:
    """Return the key of a teacher's targets; `top` matters only above FULL_CLASSES classes."""
    num_classes = len(teacher.card.classes)
    crop = augment.resolve_crop(augmentation.crop, augmentation.size)
    is_default = crop == augment.resolve_crop(None, augmentation.size)
    return TargetKey(
        shards=artifact.digest(shards.card),
        teacher=teacher.card.digest,
        seed=augmentation.seed,
        color_jitter=augmentation.color_jitter,
        view_version=augment.VERSION,
        kind=kind,
        top=num_classes if num_classes <= FULL_CLASSES else min(top, num_classes),
        crop=None if is_default else crop,
        crop_area=augmentation.crop_area if crop == "resized" else CROP_AREA,
    )


def target_directory(root: Path, shards: Shards, key: TargetKey) -> Path:
    """Return the directory under `root` for the targets of `key`."""
    return root / f"{shards.directory.resolve().name}-{key.digest[:12]}"


def find_targets(root: Path, shards: Shards, key: TargetKey, num_views: int = 1) -> Path | None:
    """Return a directory under `root` with the targets of `key` for `num_views` views.

    The directory may hold more than these targets. Returns None if there is none.
    """
    for kind in KINDS[KINDS.index(key.kind) :]:
        directory = target_directory(root, shards, replace(key, kind=kind))
        if artifact.is_done(directory):
            card = artifact.read_card(directory, "targets")
            if int(card.get("views", 0)) >= num_views:
                return directory
    return None


def file_name(view: int, name: str) -> str:
    """Return the name of an array's file.

    Example:
        >>> file_name(3, "logits")
        'view-003.logits.npy'
    """
    return f"view-{view:03d}.{name}.npy"


class TargetCache:
    """The targets of one artifact, memory-mapped."""

    def __init__(self, directory: Path, key: TargetKey, num_views: int) -> None:
        """Map the files of the first `num_views` views.

        Raises ArtifactError, which names the difference, unless they hold the targets of `key`.
        """
        self.card = artifact.read_card(directory, "targets")
        check_targets(directory, self.card, key)
        if self.card["views"] < num_views:
            raise ArtifactError(
                f"{directory} holds targets of {self.card['views']} views, not of {num_views}: run "
                f"`winnow targets --views {num_views}` to add the others"
            )
        self.views = [
            {name: _map_file(directory / file_name(view, name), spec)
             for name, spec in self.card["arrays"].items()}
            for view in range(num_views)
        ]  # fmt: skip


def check_targets(directory: Path, card: Mapping[str, Any], key: TargetKey) -> None:
    """Raise ArtifactError, which names the difference, unless the targets include `key`'s."""
    names = {
        "shards": "other shards",
        "teacher": "another teacher",
        "seed": "another view seed",
        "color_jitter": "another color jitter of views",
        "view_version": "another view version",
        "top": "another number of logits",
        "crop": "another crop of views",
        "crop_area": "another lowest area of crops",
    }
    wanted = asdict(key)
    for field, name in names.items():
        # An older card lacks the later fields, which then have their defaults.
        if (stored := card["key"].get(field, getattr(TargetKey, field, None))) != wanted[field]:
            short = [
                "the default" if value is None else str(value)[:12]
                for value in (stored, wanted[field])
            ]
            raise ArtifactError(
                f"{directory} holds targets for {name} ({short[0]}, not {short[1]}): "
                "leave --targets out, or compute them again with `winnow targets`"
            )
    kind = card["key"]["kind"]
    if KINDS.index(kind) < KINDS.index(key.kind):
        raise ArtifactError(
            f"{directory} holds only the teacher's {kind}, but this method also needs its "
            f"{key.kind}: run `winnow targets --keep {key.kind}`, or leave --targets out"
        )


def _map_file(path: Path, spec: Mapping[str, Any]) -> Array:
    """Map a file of the card, if it is whole: a truncated one would end in a bus error later."""
    if not artifact.is_whole(path, spec["bytes"]):
        raise ArtifactError(
            f"{path} is missing or does not have the {spec['bytes']} bytes that its card records: "
            f"delete {path.parent}; the next run computes the targets again"
        )
    mapped: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


class CachedTargets:
    """Targets of one cache, or of several in sequence, like the sets of a ShardDataset."""

    def __init__(
        self,
        sets: Sequence[tuple[TargetCache, Rows]],
        num_views: int,
        num_classes: int,
        needs: Needs,
    ) -> None:
        """`sets` are caches with their training rows; `needs` are the outputs in a batch."""
        self.sets, self.num_views, self.num_classes = list(sets), num_views, num_classes
        left_out = {"logits": {"features", "stage"}, "maps": set()}.get(needs, {"stage"})
        self.names = [name for name in self.sets[0][0].card["arrays"] if name not in left_out]
        self._ends = np.cumsum([len(rows) for _, rows in self.sets])

    def __call__(self, views: ViewBatch) -> TeacherTargets:
        """See Targets."""
        view = views.visits % self.num_views
        number = np.searchsorted(self._ends, views.index, side="right")
        pieces = []
        for which, (cache, rows) in enumerate(self.sets):
            for v in np.unique(view[number == which]):
                position = np.flatnonzero((number == which) & (view == v))
                # This is negative: rows of a set are counted from its end.
                row = rows[views.index[position] - self._ends[which]]
                pieces.append((position, cache.views[v], row))
        device = views.pixels.device
        sent = {name: devices.send(_gathered(pieces, name), device) for name in self.names}
        maps = {name: sent[name].float() for name in ("features", "stage") if name in sent}
        logits = sent["logits"].float()
        if "classes" in sent:
            logits = full_logits(logits, sent["classes"], sent["rest"], self.num_classes)
        return TeacherTargets(logits, **maps)


def _gathered(pieces: Sequence[tuple[Rows, Mapping[str, Array], Rows]], name: str) -> Array:
    if len(pieces) == 1:
        _, arrays, rows = pieces[0]
        return np.asarray(arrays[name][rows])
    sample = pieces[0][1][name]
    num_rows = sum(len(position) for position, _, _ in pieces)
    out = np.empty((num_rows, *sample.shape[1:]), sample.dtype)
    for position, arrays, rows in pieces:
        out[position] = arrays[name][rows]
    return out


def full_logits(top_BK: Tensor, classes_BK: Tensor, rest_B: Tensor, num_classes: int) -> Tensor:
    """Return logits [B, C], given the K largest, their classes and the logsumexp of the others.

    The others get equal logits, so that the softmax gives the tail its whole probability.
    """
    even = rest_B - math.log(max(num_classes - top_BK.shape[1], 1))
    logits_BC = even[:, None].repeat(1, num_classes)
    return logits_BC.scatter_(1, classes_BK.long(), top_BK)


def top_logits(logits_BC: Tensor, top: int) -> dict[str, Tensor]:
    """Return the arrays to store of logits [B, C], by name.

    If `top` is C, the one array holds all logits [B, C] as float16. Otherwise, the arrays are the
    inputs of `full_logits`: the K largest logits [B, K], their classes [B, K], and the logsumexp
    [B] of the others.

    Example:
        >>> sorted(top_logits(torch.zeros(2, 5), 3))
        ['classes', 'logits', 'rest']
    """
    logits_BC = logits_BC.float()
    if top == logits_BC.shape[1]:
        return {"logits": to_half(logits_BC)}
    top_BK, classes_BK = logits_BC.topk(top, dim=1)
    others = logits_BC.scatter(1, classes_BK, -torch.inf)
    return {
        "logits": to_half(top_BK),
        "classes": classes_BK.int(),
        "rest": others.logsumexp(1),
    }
