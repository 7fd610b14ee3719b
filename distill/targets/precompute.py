"""Asking the teacher about V views of every image of a shard set, once: shards -> answers kept.

Goes on where it was cut off, block by block; more views are added to those there are. N images of
the shards, B of a batch; see `distill.targets.cache` for the artifact.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distill import feature_maps
from distill.data import augment
from distill.data.dataset import ShardDataset
from distill.data.loader import (
    chunk_size,
    decode_all,
    decode_chunks,
    decode_images,
    stored_geometry,
)
from distill.distributed import SINGLE, ProcessGroup
from distill.method import Needs
from distill.recipe import TOP_LOGITS
from distill.targets.cache import (
    TargetCache,
    TargetKey,
    TeacherFunction,
    check_targets,
    file_name,
    target_directory,
    target_key,
    top_logits,
)
from distill.targets.fast_teacher import fast_teacher
from indexes import artifact, devices, npy
from indexes.artifact import ArtifactError
from indexes.images.decode import Geometry
from indexes.logits import to_half
from indexes.models.teacher import Teacher
from indexes.progress import Progress
from indexes.shards.reader import Shards

BATCH = 256
NUM_VERIFIED = 512
MAX_DIFFERENCE = (
    0.05  # of the largest logit: bf16 rounds otherwise in other batches, not by so much
)
DONE_FILE = "answered"  # what the names of files of marks begin with
# Compiling takes 5 to 30 seconds and a ResNet-18 answers 7 % faster then, on a CPU; not measured on
# a GPU. OURS
COMPILE_PAYS_VIEWS = 500_000

Array = npt.NDArray[Any]


def teacher_function(
    teacher: Teacher, kind: Needs, device: str, compiled: bool = False
) -> TeacherFunction:
    """A function that gives the teacher's logits of pixels, and its features or map as asked."""
    taught = feature_maps.teacher_map(teacher) if kind == "map" else None
    net = fast_teacher(teacher.net, teacher.card.input_size)
    answer = torch.compile(net.__call__, options={"freezing": True}) if compiled else net

    def ask(pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        with torch.no_grad(), devices.autocast(device):
            map_BDHW, features_BD, logits_BC = answer(pixels)
        if taught is not None:
            return logits_BC, taught.map_of(map_BDHW, features_BD)
        return logits_BC, features_BD if kind == "features" else None

    return ask


def compile_pays(device: str, num_answers: int) -> bool:
    """Whether to compile the teacher for so many answers: where it can be, and was seen to pay."""
    if device != "cpu" or num_answers < COMPILE_PAYS_VIEWS:
        return False
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class TargetBuilder:
    """Who is asked about what: shards, teacher, how views look, and what of an answer is kept."""

    shards: Shards
    teacher: Teacher
    look: augment.Augmentation
    kind: Needs = "logits"
    top: int = TOP_LOGITS
    device: str = "cpu"
    compiled: bool = False

    @cached_property
    def key(self) -> TargetKey:
        """What the answers belong to."""
        return target_key(self.shards, self.teacher, self.look, self.kind, self.top)

    @cached_property
    def geometry(self) -> Geometry:
        """How images are stored before views are cut."""
        return stored_geometry(self.teacher.geometry)

    @cached_property
    def ask(self) -> TeacherFunction:
        """The teacher's answers to pixels."""
        return teacher_function(self.teacher, self.kind, self.device, self.compiled)

    def answers(
        self, stored_BRR3: Tensor, rows: npt.NDArray[np.int64], view: int
    ) -> dict[str, Array]:
        """What is kept of the answers to one view of stored images [B, R, R, 3], by name."""
        hashes = self.shards.columns["key_hash"][rows]
        parts: list[dict[str, Tensor]] = []
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            number = np.full(len(rows[part]), view)
            logits_BC, features = self.ask(self.look(stored_BRR3[part], hashes[part], number))
            kept = top_logits(logits_BC, self.key.top)
            if features is not None:
                kept["features"] = to_half(features)
            parts.append({name: value.cpu() for name, value in kept.items()})
        return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def precompute_targets(
    asking: TargetBuilder, num_views: int, shelf: Path, group: ProcessGroup = SINGLE
) -> Path:
    """The directory under `shelf` with answers to `num_views` views of every image; says what it
    does. Several processes share the blocks out. OSError where they cannot fit on the disk.
    """
    devices.keep_memory(asking.device)
    directory = target_directory(shelf, asking.shards, asking.key)
    with artifact.locked(directory) if group.is_first else nullcontext():
        group.wait()
        there = 0
        if artifact.is_done(directory):
            card = artifact.read_card(directory, "targets")
            check_targets(directory, card, asking.key)
            there = int(card["views"])
        if there < num_views:
            _fill(asking, directory, there, num_views, group)
        group.wait()
    return directory


def _fill(
    asking: TargetBuilder, directory: Path, there: int, num_views: int, group: ProcessGroup
) -> None:
    """Answers to the views there..num_views-1, block by block; then the card."""
    stock = ShardDataset([(asking.shards, np.arange(len(asking.shards)))])
    most = chunk_size(asking.geometry)
    starts = np.arange(0, len(stock), most)
    # One image alone would be a shape to compile for.
    sample = _sample(replace(asking, compiled=False), stock)
    if group.is_first:
        _allocate(directory, sample, len(stock), range(there, num_views), len(starts))
    group.wait()
    maps = {
        (view, name): np.load(directory / file_name(view, name), mmap_mode="r+", allow_pickle=False)
        for view in range(there, num_views)
        for name in sample
    }
    marks = np.load(_marked(directory, there, num_views), mmap_mode="r+", allow_pickle=False)
    todo = [int(starts[b]) for b in np.flatnonzero(~marks) if b % group.num == group.rank]
    num_rows = sum(min(most, len(stock) - start) for start in todo)
    with Progress("ask the teacher", num_rows * (num_views - there), "views") as progress:
        for start, pixels in decode_chunks(stock, asking.geometry, todo, most):
            stored = torch.from_numpy(pixels).to(asking.device)
            rows = np.arange(start, start + len(pixels))
            for view in range(there, num_views):
                for name, values in asking.answers(stored, rows, view).items():
                    maps[view, name][rows] = values
                progress.add(len(rows))
            for one in maps.values():
                one.flush()
            marks[start // most] = True
            marks.flush()
    group.wait()
    if group.is_first:
        _finish(asking, directory, sample, num_views)


def _sample(asking: TargetBuilder, stock: ShardDataset) -> dict[str, Array]:
    """The answer to one view of the first image: names, dtypes and shapes of what is kept."""
    stored = torch.from_numpy(decode_images([stock.read(0)], asking.geometry)).to(asking.device)
    return asking.answers(stored, np.zeros(1, np.int64), 0)


def _allocate(
    directory: Path, sample: Mapping[str, Array], num: int, new: range, num_blocks: int
) -> None:
    """Files of the right size, filled later; marks of the blocks that are done, kept if whole."""
    files = {
        directory / file_name(view, name): ((num, *like.shape[1:]), like.dtype)
        for view in new
        for name, like in sample.items()
    }
    marks = _marked(directory, new.start, new.stop)
    known = np.load(marks, allow_pickle=False) if marks.is_file() else np.zeros(0)
    if known.shape == (num_blocks,) and all(_is_like(path, *like) for path, like in files.items()):
        return
    _unmark(directory)
    needed = sum(dtype.itemsize * math.prod(shape) for shape, dtype in files.values())
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise OSError(
            f"{directory}: the teacher's answers need {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB "
            "are free: make room, choose fewer --views, or ask at each step with --views 0"
        )
    for path, (shape, dtype) in files.items():
        np.lib.format.open_memmap(path, "w+", dtype, shape).flush()
        with path.open("rb+") as file:
            # A full disk is an OSError here; inside the mapping it would be a bus error.
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    npy.save(marks, np.zeros(num_blocks, bool))


def _marked(directory: Path, there: int, num_views: int) -> Path:
    """The file of marks of the blocks whose views there..num_views-1 are answered: of no others."""
    return directory / f"{DONE_FILE}-{there:03d}-{num_views:03d}.npy"


def _unmark(directory: Path) -> None:
    for marks in directory.glob(f"{DONE_FILE}*"):
        marks.unlink()


def _is_like(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):  # not there, or cut short
        return False
    return bool(array.shape == shape and array.dtype == dtype)


def _finish(
    asking: TargetBuilder, directory: Path, sample: Mapping[str, Array], num_views: int
) -> None:
    names = [file_name(view, name) for view in range(num_views) for name in sample]
    arrays = {
        name: {"dtype": str(like.dtype), "bytes": (directory / file_name(0, name)).stat().st_size}
        for name, like in sample.items()
    }
    body = {
        "key": asking.key,
        "views": num_views,
        "num_images": len(asking.shards),
        "num_classes": len(asking.teacher.card.classes),
        "arrays": arrays,
        "shards": str(asking.shards.directory),
        "teacher": str(asking.teacher.directory),
        "asked_on": asking.device,
        "files": [{"name": name, "sha256": artifact.sha256(directory / name)} for name in names],
    }
    artifact.write_card(directory, "targets", body)
    _unmark(directory)


def verify_targets(asking: TargetBuilder, directory: Path) -> Iterator[str]:
    """Asks again about a sample of the views kept in `directory`: a line on what is largest apart.

    ArtifactError for a file that is not as it was written, and answers too far apart.
    """
    card = artifact.read_card(directory, "targets")
    check_targets(directory, card, asking.key)
    for file in card["files"]:
        artifact.check_sha256(directory / file["name"], file["sha256"], "the answers")
    num_views, num = int(card["views"]), len(asking.shards)
    kept = TargetCache(directory, asking.key, num_views)
    generator = np.random.default_rng(0)
    rows = np.sort(generator.choice(num, min(num, NUM_VERIFIED), replace=False))
    stock = ShardDataset([(asking.shards, rows)])
    whole = decode_all(stock, asking.geometry, asking.device)
    for name in kept.card["arrays"]:
        if name == "classes":
            continue  # of nearly equal logits either may come first
        apart = largest = 0.0
        for view in range(num_views):
            before = kept.views[view][name][rows].astype(np.float32)
            again = asking.answers(whole, rows, view)[name].astype(np.float32)
            apart = max(apart, float(np.abs(before - again).max()))
            largest = max(largest, float(np.abs(before).max()))
        line = f"{name}: at most {apart:.4g} apart, of values up to {largest:.4g}"
        if not apart <= MAX_DIFFERENCE * largest:
            raise ArtifactError(f"{directory}: asked again, {line}: delete it and make it again")
        yield f"{line} ({len(rows) * num_views:,} views asked again)"
