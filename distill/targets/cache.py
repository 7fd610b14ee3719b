"""The teacher's answers to each view: asked at every step, or read from where they are kept.

A view is a function of (seed, key, number), so an answer kept for view v of an image is the one to
the very pixels that a student sees as view v, whatever the batch, the student and its seed. With
`views = 0` every visit is a fresh view and the teacher runs along; with V views an image has V
views for ever, visited in turn, and `distill.targets.precompute` makes an artifact of the answers.

That is a directory with, for view v, `view-v.logits.npy` [N, C] float16 where C <= FULL, else its
K largest with `view-v.classes.npy` [N, K] int32 and `view-v.rest.npy` [N] float32, the logsumexp of
all others; and where they are kept, `view-v.features.npy` [N, D] or [N, D, h, w] float16.
N images of a shard set, in its order; B images of a step, C classes, D features, h w a map's side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
from distill.method import Needs
from indexes import artifact, devices
from indexes.artifact import ArtifactError
from indexes.logits import to_half
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards

# Classes up to which every logit is kept. At a temperature of 4 the tail of 1,000 classes says
# much: with the 50 largest and the others' logsumexp a loss is a tenth off. OURS
FULL_CLASSES = 1024
KINDS: tuple[Needs, ...] = ("logits", "features", "map")  # each serves for those before it, too

Array = npt.NDArray[Any]
TeacherFunction = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Pixels [B, 3, S, S] -> the teacher's logits [B, C], and its features [B, D], its map
[B, D, h, w] or None: what the method needs."""


@dataclass(frozen=True)
class TeacherTargets:
    """logits [B, C], float32, and features [B, D] or a map [B, D, h, w] where they are needed."""

    logits_BC: Tensor
    features: Tensor | None


class Targets(Protocol):
    """Who answers a step."""

    def answer(self, seen: ViewBatch) -> TeacherTargets:
        """The teacher's answers to what a step sees."""


class OnlineTargets:
    """The teacher at every step."""

    def __init__(self, ask: TeacherFunction) -> None:
        self.ask = ask

    def answer(self, seen: ViewBatch) -> TeacherTargets:
        """See Targets. Rounded as what is kept, so that both train the same student."""
        logits_BC, features = self.ask(seen.pixels)
        return TeacherTargets(
            to_half(logits_BC).float(), None if features is None else to_half(features).float()
        )


@dataclass(frozen=True, kw_only=True)
class TargetKey:
    """What answers belong to, and what of them is kept: two caches of one key are the same."""

    shards: str
    """The digest of the shards' card; `teacher` that of the teacher."""
    teacher: str
    seed: int
    color: float
    view_code: int
    kind: Needs
    top: int
    """Logits kept of an answer: K, or C for all of them."""


def target_key(
    shards: Shards, teacher: Teacher, look: augment.Augmentation, kind: Needs, top: int
) -> TargetKey:
    """The key of answers of `teacher` to views of `shards`; `top` counts above FULL classes."""
    num_classes = len(teacher.card.classes)
    return TargetKey(
        shards=artifact.digest(shards.card),
        teacher=teacher.card.digest,
        seed=look.seed,
        color=look.color,
        view_code=augment.VERSION,
        kind=kind,
        top=num_classes if num_classes <= FULL_CLASSES else min(top, num_classes),
    )


def target_directory(shelf: Path, shards: Shards, key: TargetKey) -> Path:
    """Where the answers of `key` are kept, beside the shards."""
    return shelf / f"{shards.directory.resolve().name}-{artifact.digest(key)[:12]}"


def find_targets(shelf: Path, shards: Shards, key: TargetKey, num_views: int = 1) -> Path | None:
    """Where answers lie that serve for `key`, at least so many views of them."""
    for kind in KINDS[KINDS.index(key.kind) :]:
        directory = target_directory(shelf, shards, replace(key, kind=kind))
        if artifact.is_done(directory):
            card = artifact.read_card(directory, "targets")
            if int(card.get("views", 0)) >= num_views:
                return directory
    return None


def file_name(view: int, name: str) -> str:
    """`view-003.logits.npy`."""
    return f"view-{view:03d}.{name}.npy"


class TargetCache:
    """The answers of one artifact, memory-mapped, for reading."""

    def __init__(self, directory: Path, wanted: TargetKey, num_views: int) -> None:
        """Raises ArtifactError, which names what differs, unless it serves for `wanted`."""
        self.card = artifact.read_card(directory, "targets")
        check_targets(directory, self.card, wanted)
        if self.card["views"] < num_views:
            raise ArtifactError(
                f"{directory} holds answers to {self.card['views']} views, not to {num_views}: "
                f"`winnow targets --views {num_views}` asks about the others"
            )
        self.views = [
            {name: _opened(directory / file_name(view, name), like)
             for name, like in self.card["arrays"].items()}
            for view in range(num_views)
        ]  # fmt: skip


def check_targets(directory: Path, card: Mapping[str, Any], wanted: TargetKey) -> None:
    """ArtifactError unless the answers of this card serve for `wanted`, naming what differs."""
    names = {
        "shards": "other shards",
        "teacher": "another teacher",
        "seed": "another view seed",
        "color": "another color of views",
        "view_code": "another view code",
        "top": "another number of logits",
    }
    now = asdict(wanted)
    for field, name in names.items():
        if (was := card["key"].get(field)) != now[field]:
            short = [str(one)[:12] for one in (was, now[field])]
            raise ArtifactError(
                f"{directory} holds answers for {name} ({short[0]}, not {short[1]}): "
                "leave --targets out, or make them again with `winnow targets`"
            )
    kind = card["key"]["kind"]
    if KINDS.index(kind) < KINDS.index(wanted.kind):
        raise ArtifactError(
            f"{directory} holds {kind} and this method needs the teacher's {wanted.kind} too: "
            f"`winnow targets --keep {wanted.kind}`, or leave --targets out"
        )


def _opened(path: Path, like: Mapping[str, Any]) -> Array:
    """A whole file of the card, mapped; a cut one would be a bus error later."""
    if not artifact.is_whole(path, like["bytes"]):
        raise ArtifactError(
            f"{path} is missing or has not the {like['bytes']} bytes that its card says: delete "
            f"{path.parent}, and the teacher is asked again"
        )
    mapped: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


class CachedTargets:
    """Answers of one artifact, or of several one behind the other, as a Stock has its sets."""

    def __init__(
        self,
        sets: Sequence[tuple[TargetCache, Rows]],
        num_views: int,
        num_classes: int,
        needs: Needs,
    ) -> None:
        """`sets` are artifacts and the rows of each that train; `needs` is what a batch carries."""
        self.sets, self.num_views, self.num_classes = list(sets), num_views, num_classes
        names = [name for name in self.sets[0][0].card["arrays"] if name != "features"]
        self.names = names if needs == "logits" else [*names, "features"]
        self._ends = np.cumsum([len(rows) for _, rows in self.sets])

    def answer(self, seen: ViewBatch) -> TeacherTargets:
        """See Targets."""
        view = seen.visits % self.num_views
        which = np.searchsorted(self._ends, seen.index, side="right")
        pieces = []
        for number, (kept, rows) in enumerate(self.sets):
            for one in np.unique(view[which == number]):
                mine = np.flatnonzero((which == number) & (view == one))
                row = rows[seen.index[mine] - self._ends[number]]  # from the end of its own set
                pieces.append((mine, kept.views[one], row))
        device = seen.pixels.device
        sent = {name: devices.send(_gathered(pieces, name), device) for name in self.names}
        features = sent["features"].float() if "features" in sent else None
        logits = sent["logits"].float()
        if "classes" in sent:
            logits = full_logits(logits, sent["classes"], sent["rest"], self.num_classes)
        return TeacherTargets(logits, features)


def _gathered(pieces: Sequence[tuple[Rows, Mapping[str, Array], Rows]], name: str) -> Array:
    if len(pieces) == 1:
        return np.asarray(pieces[0][1][name][pieces[0][2]])
    like = pieces[0][1][name]
    out = np.empty((sum(len(mine) for mine, _, _ in pieces), *like.shape[1:]), like.dtype)
    for mine, arrays, rows in pieces:
        out[mine] = arrays[name][rows]
    return out


def full_logits(top_BK: Tensor, classes_BK: Tensor, rest_B: Tensor, num_classes: int) -> Tensor:
    """Logits [B, C] of the K largest, their classes and the logsumexp of all others.

    The others share theirs evenly, so that the softmax keeps what the tail has altogether.
    """
    even = rest_B - math.log(max(num_classes - top_BK.shape[1], 1))
    logits_BC = even[:, None].repeat(1, num_classes)
    return logits_BC.scatter_(1, classes_BK.long(), top_BK)


def top_logits(logits_BC: Tensor, top: int) -> dict[str, Tensor]:
    """What is kept of logits, by name: all of them as float16, or what `spread` takes."""
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
