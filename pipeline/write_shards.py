"""Writing of selected rows as shards: original bytes and keys, seeded order, teacher targets."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes import artifact
from indexes.artifact import hash64
from indexes.command.progress import Progress
from indexes.shards.writer import ShardWriter
from indexes.sources.sample import contained_key, text_key
from indexes.sources.spec import Part, SourceError
from pipeline.pool import Pool

SHARD_SAMPLES = 10_000
SHARD_BYTES = 1 << 29
# Approximate bytes of a sample's header, JSON and targets, for the check of free disk space.
SAMPLE_OVERHEAD = 3_000


@dataclass(frozen=True)
class SelectedRows:
    """The n selected rows in the order of the pool, with their location and their keys; [n] each.

    `keys` are unique; `source_keys` are the keys in the corpus.
    """

    rows: NDArray[np.int64]
    weight: NDArray[np.float32]
    part: NDArray[np.int64]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    content_hash: NDArray[np.uint64]
    keys: list[str]
    source_keys: list[str]
    exts: list[str]

    def __len__(self) -> int:
        return len(self.rows)


def gather_rows(pool: Pool, rows: NDArray[np.int64], weight: NDArray[np.float32]) -> SelectedRows:
    """Read the location and the key of selected rows [N] with weights [N].

    A key that occurs twice gets its row number as a suffix.
    """
    columns: list[tuple[NDArray[Any], ...]] = []
    keys: list[str] = []
    exts: list[str] = []
    for block, local in pool.by_block(rows):
        numbers = block.columns("offset", "size", "content_hash")
        part = np.full(len(local), block.part)
        columns.append((part, *(column[local] for column in numbers)))
        all_keys, all_exts = block.strings("key"), block.strings("ext")
        keys += [all_keys[row] for row in local]
        exts += [all_exts[row] for row in local]
    part, offset, size, content = (np.concatenate(column) for column in zip(*columns, strict=True))
    unique, seen = [], set[str]()
    for source_key, row in zip(keys, rows.tolist(), strict=True):
        key = name = contained_key(source_key) or str(row)
        number = row
        while name in seen:
            name, number = f"{key}-{number}", number + len(pool)
        seen.add(name)
        unique.append(name)
    return SelectedRows(rows, weight, part, offset, size, content, unique, keys, exts)


def plan_shards(selected: SelectedRows, seed: int) -> list[NDArray[np.int64]]:
    """Return the positions [M] in `selected` of every shard, in a seeded order.

    All shards but the last are full.
    """
    order = np.random.default_rng(seed).permutation(len(selected))
    ends = np.cumsum(selected.size[order] + SAMPLE_OVERHEAD)
    shards, start = [], 0
    while start < len(order):
        base = ends[start - 1] if start else 0
        by_bytes = int(np.searchsorted(ends, base + SHARD_BYTES, "right"))
        stop = max(start + 1, min(start + SHARD_SAMPLES, by_bytes, len(order)))
        shards.append(order[start:stop])
        start = stop
    return shards


class Originals:
    """Reads the original bytes of the selected images.

    Parts without cheap random access (gzip, Parquet, rendered images) are streamed once, and their
    selected images are kept in a spill file under `scratch`. Images of other parts are read in
    place.
    """

    def __init__(self, selected: SelectedRows, parts: list[Part], scratch: Path) -> None:
        self.selected, self.parts, self.scratch = selected, parts, scratch
        self.spilled = np.full(len(selected), -1, np.int64)
        streamed = [p for p in np.unique(selected.part).tolist() if not parts[p].random_access]
        if streamed:
            with Progress("collect", len(streamed), "parts") as progress:
                for number in streamed:
                    self._spill(number)
                    progress.add(1)

    def _path(self, number: int) -> Path:
        return self.scratch / f"part-{number:06d}.bin"

    def _spill(self, number: int) -> None:
        selected, part = self.selected, self.parts[number]
        wanted_rows = np.flatnonzero(selected.part == number)
        wanted_rows = wanted_rows[np.argsort(selected.offset[wanted_rows], kind="stable")]
        starts = np.concatenate([[0], np.cumsum(selected.size[wanted_rows])])
        self.spilled[wanted_rows] = starts[:-1]
        path = self._path(number)
        if path.is_file() and path.stat().st_size == starts[-1]:
            return
        wanted = {
            (int(selected.offset[row]), selected.source_keys[row]): (
                int(start),
                int(selected.size[row]),
            )
            for row, start in zip(wanted_rows, starts, strict=False)
        }
        with artifact.writing(path) as aside, aside.open("wb") as file:
            for sample in part:
                key = text_key(sample.key)
                start, size = wanted.pop((sample.offset, key), (0, -1))
                if size >= 0:
                    self._check(len(sample.data) == size, part, key)
                    file.seek(start)
                    file.write(sample.data)
                if not wanted:
                    break
        self._check(not wanted, part, next(iter(wanted), (0, ""))[1])

    def read(self, position: int) -> bytes:
        """Return the bytes of selected image `position`.

        Raises SourceError if its source has changed since it was embedded.
        """
        selected = self.selected
        part = self.parts[int(selected.part[position])]
        key = selected.source_keys[position]
        start, size = int(self.spilled[position]), int(selected.size[position])
        if start >= 0:
            with self._path(int(selected.part[position])).open("rb") as file:
                file.seek(start)
                data = file.read(size)
        else:
            data = part.fetch(key, int(selected.offset[position]), size)
        self._check(hash64(data) == int(selected.content_hash[position]), part, key)
        return data

    @staticmethod
    def _check(same: bool, part: Part, key: str) -> None:
        if not same:
            raise SourceError(
                f"{part.name}: image {key!r} is not what was embedded, because the corpus has "
                "changed: restore the file, or touch it so that the next run embeds it again"
            )


def write_shard_set(
    pool: Pool,
    parts: list[Part],
    selected: SelectedRows,
    directory: Path,
    *,
    plan_digest: str,
    seed: int,
    workers: int = 1,
) -> dict[str, Any]:
    """Write every shard that is missing, and return the card's description of the files.

    Memory: the columns and keys of the selected rows, and the targets of one shard per worker.
    """
    shards = plan_shards(selected, seed)
    writer = ShardWriter(directory, plan_digest, pool.classes)
    missing = [number for number in range(len(shards)) if not writer.has(number)]
    check_disk(directory, sum(int(selected.size[shards[n]].sum()) for n in missing), len(selected))
    scratch = directory / f".spill-{plan_digest[:10]}"
    originals = Originals(selected, parts, scratch) if missing else None

    def write(number: int) -> int:
        assert originals is not None
        write_shard(pool, selected, originals, writer, number, shards[number])
        return len(shards[number])

    with (
        Progress("shard", sum(len(shards[n]) for n in missing)) as progress,
        ThreadPoolExecutor(max(1, workers)) as threads,
    ):
        for count in threads.map(write, missing):
            progress.add(count)
    contents = writer.contents(len(shards))
    shutil.rmtree(scratch, ignore_errors=True)
    return contents


def write_shard(
    pool: Pool,
    selected: SelectedRows,
    originals: Originals,
    writer: ShardWriter,
    number: int,
    positions: NDArray[np.int64],
) -> None:
    """Write the shard of the selected images at `positions` [M].

    Targets and columns are gathered block by block, and images are streamed.
    """
    ascending = np.sort(positions)
    rank = np.argsort(np.argsort(positions, kind="stable"), kind="stable")
    pieces: dict[str, list[NDArray[Any]]] = {}
    for block, local in pool.by_block(selected.rows[ascending]):
        pieces.setdefault("logits", []).append(block.matrix("logits")[local])
        if block.logit_classes is not None:
            pieces.setdefault("classes", []).append(block.logit_classes[local])
    names = ["label", "logsumexp", "log_odds", "entropy", *pool.scores]
    rows = selected.rows[positions]
    columns: dict[str, NDArray[Any]] = {name: pool.column(name)[rows] for name in names}
    columns |= {"weight": selected.weight[positions], "source_offset": selected.offset[positions]}
    whole = {name: np.concatenate(parts)[rank] for name, parts in pieces.items()}
    parts = pool.embeddings.card["parts"]
    writer.write(
        number,
        keys=[selected.keys[position] for position in positions],
        exts=[selected.exts[position] for position in positions],
        images=(originals.read(int(position)) for position in positions),
        columns=columns,
        logits=whole["logits"],
        logit_classes=whole.get("classes"),
        sources=[parts[number]["name"] for number in selected.part[positions].tolist()],
    )


def check_disk(directory: Path, image_bytes: int, num_samples: int) -> None:
    """Raise OSError if the shards do not fit on the disk."""
    needed = image_bytes + num_samples * SAMPLE_OVERHEAD
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise OSError(
            f"{directory}: the shards need about {needed / 1e9:.2f} GB, but only "
            f"{free / 1e9:.2f} GB are free: make room or choose another --runs"
        )
