"""The teacher's targets for each view: computed online at every step, or read from a cache.

A view is a function of (seed, key, number), so the cached target of view v of an image belongs to
the very pixels that a student sees as view v, whatever the batch, the student and its seed. With
`views = 0` every visit is a fresh view and the teacher runs at each step; with V views an image has
V fixed views, visited in turn, and `distill.targets.precompute` makes an artifact of the targets.

The artifact is a directory with, for view v, `view-v.logits.npy` [N, C] float16 where
C <= FULL_CLASSES, else the K largest with `view-v.classes.npy` [N, K] int32 and `view-v.rest.npy`
[N] float32, the logsumexp of all others; and where they are cached, `view-v.features.npy` [N, D] or
[N, D, h, w] float16. N images of a shard set, in its order; B images of a step, C classes, D
features, h w the side of a map.
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
from distill.recipe import Needs
from distill.targets.fast_teacher import TeacherFunction
from indexes import artifact, devices
from indexes.artifact import ArtifactError
from indexes.logits import to_half
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards

# Every logit is stored up to this number of classes. At a temperature of 4 the tail of 1,000
# classes matters: with the 50 largest and the logsumexp of the others, a loss is 10 % off. OURS
FULL_CLASSES = 1024
KINDS: tuple[Needs, ...] = ("logits", "features", "map")  # each includes those before it

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TeacherTargets:
    """logits [B, C], float32, and features [B, D] or a map [B, D, h, w] where they are needed."""

    logits_BC: Tensor
    features: Tensor | None


class Targets(Protocol):
    """Where the targets of a step come from."""

    def __call__(self, views: ViewBatch) -> TeacherTargets:
        """The teacher's targets for the views of a step."""


class OnlineTargets:
    """Targets that the teacher computes at every step."""

    def __init__(self, teacher: TeacherFunction) -> None:
        self.teacher = teacher

    def __call__(self, views: ViewBatch) -> TeacherTargets:
        """See Targets. Rounded as in a cache, so that both train the same student."""
        logits_BC, features = self.teacher(views.pixels)
        return TeacherTargets(
            to_half(logits_BC).float(), None if features is None else to_half(features).float()
        )


@dataclass(frozen=True, kw_only=True)
class TargetKey:
    """What cached targets depend on, and their kind: two caches of one key are the same."""

    shards: str
    """The digest of the shards' card; `teacher` that of the teacher."""
    teacher: str
    seed: int
    color_jitter: float
    view_version: int
    kind: Needs
    top: int
    """Logits stored of each target: K, or C for all of them."""


def target_key(
    shards: Shards, teacher: Teacher, augmentation: augment.Augmentation, kind: Needs, top: int
) -> TargetKey:
    """The key of `teacher`'s targets for `shards`; `top` counts above FULL_CLASSES classes."""
    num_classes = len(teacher.card.classes)
    return TargetKey(
        shards=artifact.digest(shards.card),
        teacher=teacher.card.digest,
        seed=augmentation.seed,
        color_jitter=augmentation.color_jitter,
        view_version=augment.VERSION,
        kind=kind,
        top=num_classes if num_classes <= FULL_CLASSES else min(top, num_classes),
    )


def target_directory(root: Path, shards: Shards, key: TargetKey) -> Path:
    """The directory under `root` of the targets of `key`."""
    return root / f"{shards.directory.resolve().name}-{artifact.digest(key)[:12]}"


def find_targets(root: Path, shards: Shards, key: TargetKey, num_views: int = 1) -> Path | None:
    """A directory under `root` whose targets include those of `key` for `num_views` views."""
    for kind in KINDS[KINDS.index(key.kind) :]:
        directory = target_directory(root, shards, replace(key, kind=kind))
        if artifact.is_done(directory):
            card = artifact.read_card(directory, "targets")
            if int(card.get("views", 0)) >= num_views:
                return directory
    return None


def file_name(view: int, name: str) -> str:
    """`view-003.logits.npy`."""
    return f"view-{view:03d}.{name}.npy"


class TargetCache:
    """The targets of one artifact, memory-mapped."""

    def __init__(self, directory: Path, key: TargetKey, num_views: int) -> None:
        """Raises ArtifactError, which names what differs, unless the targets include `key`'s."""
        self.card = artifact.read_card(directory, "targets")
        check_targets(directory, self.card, key)
        if self.card["views"] < num_views:
            raise ArtifactError(
                f"{directory} holds targets of {self.card['views']} views, not of {num_views}: "
                f"`winnow targets --views {num_views}` adds the others"
            )
        self.views = [
            {name: _map_file(directory / file_name(view, name), spec)
             for name, spec in self.card["arrays"].items()}
            for view in range(num_views)
        ]  # fmt: skip


def check_targets(directory: Path, card: Mapping[str, Any], key: TargetKey) -> None:
    """ArtifactError unless the targets of this card include `key`'s, naming what differs."""
    names = {
        "shards": "other shards",
        "teacher": "another teacher",
        "seed": "another view seed",
        "color_jitter": "another color jitter of views",
        "view_version": "another view version",
        "top": "another number of logits",
    }
    wanted = asdict(key)
    for field, name in names.items():
        if (stored := card["key"].get(field)) != wanted[field]:
            short = [str(value)[:12] for value in (stored, wanted[field])]
            raise ArtifactError(
                f"{directory} holds targets for {name} ({short[0]}, not {short[1]}): "
                "leave --targets out, or compute them again with `winnow targets`"
            )
    kind = card["key"]["kind"]
    if KINDS.index(kind) < KINDS.index(key.kind):
        raise ArtifactError(
            f"{directory} holds {kind}, and this method needs the teacher's {key.kind} too: "
            f"run `winnow targets --keep {key.kind}`, or leave --targets out"
        )


def _map_file(path: Path, spec: Mapping[str, Any]) -> Array:
    """A whole file of the card, mapped; a cut one would be a bus error later."""
    if not artifact.is_whole(path, spec["bytes"]):
        raise ArtifactError(
            f"{path} is missing or does not have the {spec['bytes']} bytes that its card records: "
            f"delete {path.parent}; the next run computes the targets again"
        )
    mapped: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


class CachedTargets:
    """Targets of one cache, or of several one behind the other, as the sets of a ShardDataset."""

    def __init__(
        self,
        sets: Sequence[tuple[TargetCache, Rows]],
        num_views: int,
        num_classes: int,
        needs: Needs,
    ) -> None:
        """`sets` are caches and the rows of each that train; `needs` is what a batch carries."""
        self.sets, self.num_views, self.num_classes = list(sets), num_views, num_classes
        names = [name for name in self.sets[0][0].card["arrays"] if name != "features"]
        self.names = names if needs == "logits" else [*names, "features"]
        self._ends = np.cumsum([len(rows) for _, rows in self.sets])

    def __call__(self, views: ViewBatch) -> TeacherTargets:
        """See Targets."""
        view = views.visits % self.num_views
        number = np.searchsorted(self._ends, views.index, side="right")
        pieces = []
        for which, (cache, rows) in enumerate(self.sets):
            for v in np.unique(view[number == which]):
                position = np.flatnonzero((number == which) & (view == v))
                # Rows of a set are counted from its end.
                row = rows[views.index[position] - self._ends[which]]
                pieces.append((position, cache.views[v], row))
        device = views.pixels.device
        sent = {name: devices.send(_gathered(pieces, name), device) for name in self.names}
        features = sent["features"].float() if "features" in sent else None
        logits = sent["logits"].float()
        if "classes" in sent:
            logits = full_logits(logits, sent["classes"], sent["rest"], self.num_classes)
        return TeacherTargets(logits, features)


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
    """Logits [B, C] of the K largest, their classes and the logsumexp of all others.

    The others share theirs evenly, so that the softmax gives the tail its whole mass.
    """
    even = rest_B - math.log(max(num_classes - top_BK.shape[1], 1))
    logits_BC = even[:, None].repeat(1, num_classes)
    return logits_BC.scatter_(1, classes_BK.long(), top_BK)


def top_logits(logits_BC: Tensor, top: int) -> dict[str, Tensor]:
    """Return the arrays to store of logits [B, C], by name.

    They are all logits [B, C] as float16 if `top` is C, else the inputs of `full_logits`: the K
    largest [B, K], their classes [B, K] and the logsumexp [B] of the others.

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
