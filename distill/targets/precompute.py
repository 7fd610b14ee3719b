"""Compute the teacher's targets for V views of every image of a shard set, and cache them.

An interrupted run continues with the next block. More views are added to the existing ones. See
`distill.targets.cache` for the artifact. N images of the shards, B images of a batch.
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

from distill.data import augment
from distill.data.dataset import ShardDataset
from distill.data.loader import (
    chunk_size,
    decode_all,
    decode_chunks,
    decode_images,
    stored_geometry,
)
from distill.data.sampler import Rows
from distill.distributed import SINGLE, ProcessGroup
from distill.recipe import TOP_LOGITS, Needs
from distill.targets.cache import (
    TargetCache,
    TargetKey,
    check_targets,
    file_name,
    target_directory,
    target_key,
    top_logits,
)
from distill.targets.fast_teacher import TeacherFunction, teacher_function
from indexes import artifact, npy
from indexes.artifact import ArtifactError
from indexes.command.progress import Progress
from indexes.images.decode import Geometry
from indexes.logits import to_half
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards

BATCH = 256
NUM_VERIFIED = 512
# Relative to the largest value. In other batches bf16 rounds differently, but by far less.
MAX_DIFFERENCE = 0.05
DONE_FILE = "done"  # prefix of the files that mark finished blocks

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class TargetBuilder:
    """The computation of targets: shards, teacher, views, and what is stored of each target."""

    shards: Shards
    teacher: Teacher
    augmentation: augment.Augmentation
    kind: Needs = "logits"
    top: int = TOP_LOGITS
    device: str = "cpu"
    compiled: bool = False

    @cached_property
    def key(self) -> TargetKey:
        """The inputs that the targets depend on."""
        return target_key(self.shards, self.teacher, self.augmentation, self.kind, self.top)

    @cached_property
    def geometry(self) -> Geometry:
        """The geometry of stored images, from which views are cut."""
        return stored_geometry(self.teacher.geometry)

    @cached_property
    def teacher_function(self) -> TeacherFunction:
        """The teacher as a function of pixels."""
        return teacher_function(self.teacher, self.kind, self.device, self.compiled)

    def compute(self, stored_BRR3: Tensor, rows: Rows, view: int) -> dict[str, Array]:
        """Return the arrays to store for one view of stored images [B, R, R, 3], by name.

        `rows` [B] are the rows of the images in the shards.
        """
        hashes = self.shards.columns["key_hash"][rows]
        parts: list[dict[str, Tensor]] = []
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            number = np.full(len(rows[part]), view)
            pixels = self.augmentation(stored_BRR3[part], hashes[part], number)
            logits_BC, features, stage = self.teacher_function(pixels)
            stored = top_logits(logits_BC, self.key.top)
            if features is not None:
                stored["features"] = to_half(features)
            if stage is not None:
                stored["stage"] = to_half(stage)
            parts.append({name: value.cpu() for name, value in stored.items()})
        return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def build_target_cache(
    builder: TargetBuilder, num_views: int, root: Path, group: ProcessGroup = SINGLE
) -> Path:
    """Return the directory under `root` with the targets of `num_views` views of every image.

    Missing targets are computed; several processes share the blocks. Raises OSError if the targets
    do not fit on the disk.
    """
    directory = target_directory(root, builder.shards, builder.key)
    with artifact.locked(directory) if group.is_first else nullcontext():
        group.wait()
        num_done = 0
        if artifact.is_done(directory):
            card = artifact.read_card(directory, "targets")
            check_targets(directory, card, builder.key)
            num_done = int(card["views"])
        if num_done < num_views:
            _fill(builder, directory, range(num_done, num_views), group)
        group.wait()
    return directory


def _fill(builder: TargetBuilder, directory: Path, views: range, group: ProcessGroup) -> None:
    """Compute the targets of these views block by block, then write the card."""
    dataset = ShardDataset([(builder.shards, np.arange(len(builder.shards)))])
    most = chunk_size(builder.geometry)
    starts = np.arange(0, len(dataset), most)
    # Not compiled, because a batch of one image would be a second shape to compile for.
    sample = _sample(replace(builder, compiled=False), dataset)
    if group.is_first:
        _allocate(directory, sample, len(dataset), views, len(starts))
    group.wait()
    arrays = {
        (view, name): np.load(directory / file_name(view, name), mmap_mode="r+", allow_pickle=False)
        for view in views
        for name in sample
    }
    done = np.load(_done_path(directory, views), mmap_mode="r+", allow_pickle=False)
    todo = [int(starts[b]) for b in np.flatnonzero(~done) if b % group.num == group.rank]
    num_rows = sum(min(most, len(dataset) - start) for start in todo)
    with Progress("teacher targets", num_rows * len(views), "views") as progress:
        for start, pixels in decode_chunks(dataset, builder.geometry, todo, most):
            stored = torch.from_numpy(pixels).to(builder.device)
            rows = np.arange(start, start + len(pixels))
            for view in views:
                for name, values in builder.compute(stored, rows, view).items():
                    arrays[view, name][rows] = values
                progress.add(len(rows))
            for array in arrays.values():
                array.flush()
            done[start // most] = True
            done.flush()
    group.wait()
    if group.is_first:
        _finish(builder, directory, sample, views.stop)


def _sample(builder: TargetBuilder, dataset: ShardDataset) -> dict[str, Array]:
    """Return the arrays of one view of the first image, as examples of names, dtypes and shapes."""
    stored = torch.from_numpy(decode_images([dataset.read(0)], builder.geometry)).to(builder.device)
    return builder.compute(stored, np.zeros(1, np.int64), 0)


def _allocate(
    directory: Path, sample: Mapping[str, Array], num: int, views: range, num_blocks: int
) -> None:
    """Create the files, to be filled later; if all exist, keep them and their finished blocks."""
    files = {
        directory / file_name(view, name): ((num, *array.shape[1:]), array.dtype)
        for view in views
        for name, array in sample.items()
    }
    done = _done_path(directory, views)
    known = np.load(done, allow_pickle=False) if done.is_file() else np.zeros(0)
    if known.shape == (num_blocks,) and all(_is_like(path, *like) for path, like in files.items()):
        return
    _unmark(directory)
    needed = sum(dtype.itemsize * math.prod(shape) for shape, dtype in files.values())
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise OSError(
            f"{directory}: the teacher's targets need {needed / 1e9:.2f} GB, but only "
            f"{free / 1e9:.2f} GB are free: make room, choose fewer --views, or compute them at "
            "each step with --views 0"
        )
    for path, (shape, dtype) in files.items():
        np.lib.format.open_memmap(path, "w+", dtype, shape).flush()
        with path.open("rb+") as file:
            # A full disk raises OSError here; a write to the mapping would end in a bus error.
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    npy.save(done, np.zeros(num_blocks, bool))


def _done_path(directory: Path, views: range) -> Path:
    """Return the path of the file that marks the finished blocks of exactly these views."""
    return directory / f"{DONE_FILE}-{views.start:03d}-{views.stop:03d}.npy"


def _unmark(directory: Path) -> None:
    for path in directory.glob(f"{DONE_FILE}*"):
        path.unlink()


def _is_like(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):  # missing or truncated
        return False
    return bool(array.shape == shape and array.dtype == dtype)


def _finish(
    builder: TargetBuilder, directory: Path, sample: Mapping[str, Array], num_views: int
) -> None:
    names = [file_name(view, name) for view in range(num_views) for name in sample]
    arrays = {
        name: {"dtype": str(array.dtype), "bytes": (directory / file_name(0, name)).stat().st_size}
        for name, array in sample.items()
    }
    body = {
        "key": builder.key,
        "views": num_views,
        "num_images": len(builder.shards),
        "num_classes": len(builder.teacher.card.classes),
        "arrays": arrays,
        "shards": str(builder.shards.directory),
        "teacher": str(builder.teacher.directory),
        "device": builder.device,
        "files": [{"name": name, "sha256": artifact.sha256(directory / name)} for name in names],
    }
    artifact.write_card(directory, "targets", body)
    _unmark(directory)


def verify_targets(builder: TargetBuilder, directory: Path) -> Iterator[str]:
    """Compute a sample of the targets again; yield a line with the largest difference per array.

    Raises ArtifactError if a file changed since it was written, or if the targets differ by more
    than rounding.
    """
    card = artifact.read_card(directory, "targets")
    check_targets(directory, card, builder.key)
    for file in card["files"]:
        artifact.check_sha256(directory / file["name"], file["sha256"], "the targets")
    num_views, num = int(card["views"]), len(builder.shards)
    cache = TargetCache(directory, builder.key, num_views)
    generator = np.random.default_rng(0)
    rows = np.sort(generator.choice(num, min(num, NUM_VERIFIED), replace=False))
    dataset = ShardDataset([(builder.shards, rows)])
    images = decode_all(dataset, builder.geometry, builder.device)
    for name in cache.card["arrays"]:
        if name == "classes":
            continue  # two nearly equal logits may swap places
        difference = largest = 0.0
        for view in range(num_views):
            before = cache.views[view][name][rows].astype(np.float32)
            again = builder.compute(images, rows, view)[name].astype(np.float32)
            difference = max(difference, float(np.abs(before - again).max()))
            largest = max(largest, float(np.abs(before).max()))
        line = f"{name}: differs by at most {difference:.4g}, in values up to {largest:.4g}"
        if not difference <= MAX_DIFFERENCE * largest:
            raise ArtifactError(
                f"{directory}: the targets are not the same when computed again ({line}): delete "
                "the directory and compute them again"
            )
        yield f"{line} ({len(rows) * num_views:,} views computed again)"
