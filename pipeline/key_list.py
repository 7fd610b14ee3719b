"""A selection as a key list: a small file from which the same selection can be made again.

A key list is a Parquet file, sorted by source and key. Its columns are key, source (the corpus
part), label, weight, score and content_hash (64 bits of the image's bytes). With the same corpus,
teacher and seed, it reproduces the tars byte for byte and the columns of the side-cars. Only the
provenance differs: method, settings, digests and the side-cars' plan. Its n rows are held in
memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexes import artifact, npy
from indexes.artifact import ArtifactError
from pipeline.method import Choice, Scored
from pipeline.pool import REASONS, Pool, chunks
from pipeline.selection.top_n import Balance, Selection

if TYPE_CHECKING:
    import pyarrow as pa


def schema() -> pa.Schema:
    """Return the columns of a key list."""
    import pyarrow as pa

    types = {
        "key": pa.string(),
        "source": pa.string(),
        "label": pa.int32(),
        "weight": pa.float32(),
        "score": pa.float32(),
        "content_hash": pa.uint64(),
    }
    return pa.schema(list(types.items()))


def export(path: Path, pool: Pool, rows: NDArray[np.int64], weight: NDArray[np.float32]) -> None:
    """Write the key list of the selected rows [N], ascending, with their weights [N]."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pieces: list[dict[str, Any]] = []
    start = 0
    for block, local in pool.by_block(rows):
        stop = start + len(local)
        keys, (label, content) = block.strings("key"), block.columns("label", "content_hash")
        pieces.append(
            {
                "key": [keys[row] for row in local.tolist()],
                "source": [block.source] * len(local),
                "label": label[local],
                "weight": np.asarray(weight[start:stop], np.float32),
                "score": pool.column("score")[rows[start:stop]],
                "content_hash": content[local],
            }
        )
        start = stop
    table = pa.concat_tables([pa.table(piece, schema=schema()) for piece in pieces])
    table = table.sort_by([("source", "ascending"), ("key", "ascending")])
    with artifact.writing(path) as aside:
        pq.write_table(table, aside, compression="zstd")


@dataclass(frozen=True)
class ListedRows:
    """The listed images that the pool holds: ascending rows [n], their weights and scores [n].

    `missing` names the images that the pool lacks as `source: key`, and `changed` those with other
    bytes. Listed duplicates are kept; listed images of the evaluation set are not. `num_listed` is
    the number of images in the list.
    """

    rows: NDArray[np.int64]
    weight: NDArray[np.float32]
    score: NDArray[np.float32]
    missing: list[str]
    changed: list[str]
    num_listed: int


def find_rows(path: Path, pool: Pool) -> ListedRows:
    """Find the listed images in the pool by source part and key, and check their content hash.

    If some images are missing or excluded, the weights of the others are scaled to mean 1. Raises
    ArtifactError if the file is not a key list, lists an image twice, or has no image of the pool.
    """
    table = read(path)
    row_of, changed = _match(table, pool)
    listed = np.flatnonzero(row_of >= 0)
    if not len(listed):
        raise ArtifactError(
            f"{path}: none of its {len(table):,} images is in this corpus ({changed.sum():,} have "
            "the same key but other bytes): the list was exported from another corpus; give that "
            "corpus as --corpus"
        )
    listed = listed[np.argsort(row_of[listed])]
    listed = listed[pool.column("reason")[row_of[listed]] != REASONS.index("protected")]
    if not len(listed):
        raise ArtifactError(
            f"{path}: --exclude-eval drops every listed image that is in this corpus; check that "
            "the list was not exported from the evaluation set"
        )
    weight, score = (table[name].to_numpy()[listed] for name in ("weight", "score"))
    if len(listed) < len(table):
        weight = (weight / weight.mean(dtype=np.float64)).astype(np.float32)
    missing, changes = (
        [f"{table['source'][number]}: {table['key'][number]}" for number in np.flatnonzero(mask)]
        for mask in ((row_of < 0) & ~changed, changed)
    )
    return ListedRows(row_of[listed], weight, score, missing, changes, len(table))


def _match(table: pa.Table, pool: Pool) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the pool row of each listed image, or -1, and whether the pool has other bytes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    keys, content = table["key"].combine_chunks(), table["content_hash"].to_numpy()
    sources = table["source"].combine_chunks().dictionary_encode()
    source_of = {name: number for number, name in enumerate(sources.dictionary.to_pylist())}
    source = sources.indices.to_numpy()
    order = np.argsort(source, kind="stable")
    bounds = np.searchsorted(source[order], np.arange(len(source_of) + 1))
    row_of, changed = np.full(len(keys), -1, np.int64), np.zeros(len(keys), bool)
    for block in pool.blocks:
        if block.source not in source_of:
            continue
        number = source_of[block.source]
        listed = order[bounds[number] : bounds[number + 1]]
        block_keys = pa.array(block.strings("key"), pa.string())
        local = pc.index_in(keys.take(pa.array(listed)), value_set=block_keys)
        local = local.fill_null(-1).to_numpy()
        listed, local = listed[local >= 0], local[local >= 0]
        same = block.columns("content_hash")[0][local] == content[listed]
        row_of[listed[same]] = block.start + local[same]
        changed[listed[~same]] = True
    return row_of, changed


def read(path: Path) -> pa.Table:
    """Read a key list and check its columns.

    Raises ArtifactError if the file cannot be read, lacks a column, is empty or lists an image
    twice.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ArtifactError(
            f"{path} cannot be read as a key list ({error}); `winnow select --export` writes one"
        ) from None
    lacking = [field.name for field in schema() if field.name not in table.column_names]
    if lacking or not len(table):
        reason = f"it has no column {', '.join(lacking)}" if lacking else "it is empty"
        remedy = "`winnow select --export` writes one"
        raise ArtifactError(f"{path} is not a key list: {reason}; {remedy}")
    table = table.select(schema().names).cast(schema())
    if table.group_by(["source", "key"]).aggregate([]).num_rows < len(table):
        raise ArtifactError(f"{path} lists an image twice: export the list again")
    return table


@dataclass(frozen=True, kw_only=True)
class Config(Choice):
    """The settings of a selection by key list. Balance and weights come from the list."""

    balance: Balance = "all"
    sha256: str = ""
    """The SHA-256 of the key list."""


class Listed:
    """A key list in the role of a method: its scores are those of the list, and NaN elsewhere."""

    Config = Config

    def __init__(self, path: Path) -> None:
        self.path = path

    def score(self, pool: Pool, config: Any, seed: int) -> Scored:
        """Yield blocks of {"score"}, float32 [n]."""
        listed = find_rows(self.path, pool)
        for block in pool.blocks:
            low, high = np.searchsorted(listed.rows, [block.start, block.stop])
            score = np.full(len(block), np.nan, np.float32)
            score[listed.rows[low:high] - block.start] = listed.score[low:high]
            yield block, {"score": score}


def select(pool: Pool, path: Path, directory: Path) -> tuple[Selection, dict[str, Any]]:
    """Write rows.npy and weight.npy of the listed images; return the selection and card fields.

    The fields are the number of requested images and the `source: key` of missing and of changed
    images.

    Example: `key_list.select(pool, Path("keys.parquet"), Path("selection"))`
    """
    listed = find_rows(path, pool)
    npy.save(directory / "rows.npy", listed.rows)
    npy.save(directory / "weight.npy", listed.weight)
    counts = np.zeros(len(REASONS), np.int64)
    for piece in chunks(len(pool)):
        counts += np.bincount(pool.column("reason")[piece], minlength=len(counts))
    counts -= np.bincount(pool.column("reason")[listed.rows], minlength=len(counts))
    dropped = dict(zip((*REASONS[1:], "not_selected"), np.roll(counts, -1).tolist(), strict=True))
    histogram = np.bincount(pool.column("label")[listed.rows], minlength=len(pool.classes))
    fields = {
        "num_requested": listed.num_listed,
        "missing": listed.missing,
        "changed": listed.changed,
    }
    return Selection(len(listed.rows), dropped, 0, histogram), fields
