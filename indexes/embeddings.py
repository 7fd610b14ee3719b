"""The embeddings of a corpus: blocks of features, logits and columns, one set per part.

Block 0 of part 3 is `part-000003.000.{features.npy,logits.npy,classes.npy,parquet}`. The part's
manifest `part-000003.json`, written last, counts samples and drops. Legend: n rows per block, D
features, K stored logits (all C logits up to 128 classes, else the largest with their classes).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes import artifact, npy
from indexes.artifact import ArtifactError

Array = npt.NDArray[Any]
COLUMNS: dict[str, Any] = {
    "offset": np.int64,
    "size": np.int64,
    "width": np.int32,
    "height": np.int32,
    "key_hash": np.uint64,
    "content_hash": np.uint64,
    "label": np.int32,
    "log_odds": np.float32,
    "logsumexp": np.float32,
    "entropy": np.float32,
}


@dataclass(frozen=True)
class Block:
    """Rows `start` to `stop` of an embedded corpus; its matrices are memory-mapped.

    Example: `block.matrix("features")[:10]`, `block.columns("label", "log_odds")`
    """

    stem: Path
    source: str
    part: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def matrix(self, name: str) -> Array:
        """Open a matrix of the block by name, memory-mapped.

        `features` is float16 [n, D], `logits` float16 [n, K], `thumb` uint8 [n, WIDTH]
        (indexes.images.thumbnails). Some embeddings also have `tower` float16 [n, E], `bn`
        float16 [n, L] and `moments` float16 [n, 2K] (pipeline.embedding.bn_stats).
        Raises ArtifactError if the file is missing or damaged.
        """
        path = self.stem.with_name(f"{self.stem.name}.{name}.npy")
        try:
            rows: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"{path} is damaged ({error}): delete its folder and rerun"
            ) from None
        if len(rows) != len(self):
            raise ArtifactError(
                f"{path} has {len(rows)} rows, not {len(self)}: delete its folder and rerun"
            )
        return rows

    def has(self, name: str) -> bool:
        """Return whether this block has the matrix of that name."""
        return self.stem.with_name(f"{self.stem.name}.{name}.npy").is_file()

    @property
    def logit_classes(self) -> npt.NDArray[np.int32] | None:
        """Classes of the stored logits, int32 [n, K]; None if all logits are stored in order."""
        return self.matrix("classes") if self.has("classes") else None

    def columns(self, *names: str) -> tuple[Array, ...]:
        """Read numeric columns, each [n], by their names in COLUMNS."""
        import pyarrow.parquet as pq

        table = pq.read_table(self._table_path, columns=list(names))
        return tuple(table[name].to_numpy() for name in names)

    def strings(self, name: str) -> list[str]:
        """Read a string column (`key` or `ext`) of n values."""
        import pyarrow.parquet as pq

        values: list[str] = pq.read_table(self._table_path, columns=[name])[name].to_pylist()
        return values

    @property
    def _table_path(self) -> Path:
        return self.stem.with_name(f"{self.stem.name}.parquet")


class Embeddings:
    """An embedded corpus: `blocks` in the order of the parts; `card` has counts and teacher."""

    def __init__(self, directory: Path, card: dict[str, Any]) -> None:
        self.directory, self.card = directory, card

    @cached_property
    def blocks(self) -> list[Block]:
        """Every block, with its range of rows in the whole corpus."""
        blocks, start = [], 0
        for number, part in enumerate(self.card["parts"]):
            for block, size in enumerate(part["blocks"]):
                stem = self.directory / f"{part_name(number)}.{block:03d}"
                blocks.append(Block(stem, part["name"], number, start, start + size))
                start += size
        return blocks

    def __len__(self) -> int:
        return int(self.card["num_samples"])

    def by_block(
        self, rows: npt.NDArray[np.int64]
    ) -> Iterator[tuple[Block, npt.NDArray[np.int64]]]:
        """Group ascending rows [n] by block: yield (block, row numbers within it [m])."""
        for block in self.blocks:
            low, high = np.searchsorted(rows, [block.start, block.stop])
            if high > low:
                yield block, rows[low:high] - block.start

    def keys_of(self, rows: npt.NDArray[np.int64]) -> list[tuple[str, str]]:
        """Return (key, corpus part) of rows [n] in any order; only their blocks are read."""
        keys: dict[int, tuple[str, str]] = {}
        for block, local in self.by_block(np.unique(rows)):
            names = block.strings("key")
            keys |= {block.start + row: (names[row], block.source) for row in local.tolist()}
        return [keys[row] for row in rows.tolist()]


def open_embeddings(directory: str | Path) -> Embeddings:
    """Open an embedded corpus; `artifact.read_card` raises ArtifactError if there is none.

    Example: `open_embeddings("runs/embeddings/demo-0123456789").blocks[0].matrix("features")`
    """
    directory = Path(directory)
    return Embeddings(directory, artifact.read_card(directory, "embeddings"))


def part_name(number: int) -> str:
    """Return the file stem of a part.

    Example:
        >>> part_name(3)
        'part-000003'
    """
    return f"part-{number:06d}"


def part_manifest(directory: Path, number: int) -> dict[str, Any] | None:
    """Return the manifest of a part, or None if the part is not finished."""
    path = directory / f"{part_name(number)}.json"
    return artifact.read_json(path) if path.is_file() else None


def write_block(
    directory: Path,
    number: int,
    block: int,
    matrices: Mapping[str, Array],
    columns: Mapping[str, Array],
    strings: Mapping[str, Sequence[str]],
) -> None:
    """Write the files of a block, each atomically; `finish_part` then declares the part finished.

    matrices: [n, ...] each; columns: [n] each, those of COLUMNS; strings: n values each.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    stem = f"{part_name(number)}.{block:03d}"
    for name, matrix in matrices.items():
        npy.save(directory / f"{stem}.{name}.npy", matrix)
    arrays = {name: pa.array(list(values), pa.string()) for name, values in strings.items()}
    arrays |= {name: pa.array(columns[name].astype(dtype)) for name, dtype in COLUMNS.items()}
    with artifact.writing(directory / f"{stem}.parquet") as aside:
        pq.write_table(pa.table(arrays), aside, compression="zstd")


def finish_part(directory: Path, number: int, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a part, which declares it finished.

    It holds `name`, `fingerprint`, `settings`, `blocks` (the rows of each), `found`, `dropped`
    (counts by reason) and `damage`.
    """
    artifact.write_json(directory / f"{part_name(number)}.json", manifest)


def part_manifests(directory: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number, manifest) of every finished part, even if the embedding is unfinished."""
    for path in sorted(directory.glob("part-??????.json")):
        yield int(path.stem[len("part-") :]), artifact.read_json(path)


def link_part(source: Path, number: int, directory: Path, as_number: int) -> None:
    """Make part `number` of `source` part `as_number` of `directory`; its manifest comes last.

    The files are hard links where the file system has them, otherwise copies.
    """
    for path in sorted(source.glob(f"{part_name(number)}.*.*")):
        target = directory / path.name.replace(part_name(number), part_name(as_number))
        artifact.link(path, target)
    finish_part(directory, as_number, artifact.read_json(source / f"{part_name(number)}.json"))


def finish(directory: Path, num_parts: int, body: Mapping[str, Any]) -> None:
    """Write card.json for parts 0 to num_parts - 1, with the sums of their counts.

    Raises ArtifactError if a part is not finished.
    """
    manifests = [part_manifest(directory, number) for number in range(num_parts)]
    parts = [manifest for manifest in manifests if manifest is not None]
    if len(parts) != num_parts:
        raise ArtifactError(
            f"{directory}: {num_parts - len(parts)} parts are not embedded yet; run the same "
            "command again"
        )
    reasons = sorted({reason for part in parts for reason in part["dropped"]})
    artifact.write_card(
        directory,
        "embeddings",
        {
            **body,
            "num_found": sum(part["found"] for part in parts),
            "num_samples": sum(sum(part["blocks"]) for part in parts),
            "dropped": {
                reason: sum(part["dropped"].get(reason, 0) for part in parts) for reason in reasons
            },
            "damaged_parts": [part["damage"] for part in parts if part["damage"]],
            "parts": parts,
        },
    )
