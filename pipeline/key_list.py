"""A selection as a list of keys: small enough to send, exact enough to be made again.

Parquet, sorted by source and key: key, source (the corpus part), label, weight, score and
content_hash (64 bits of the image's bytes). From the same corpus, teacher and seed it makes the
same tars, byte for byte, and the same columns in the side-cars; what differs is what says where
they came from: method, settings, digests and the side-cars' plan. n rows, in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexes import artifact, npy
from indexes.artifact import ArtifactError
from pipeline.method import Choice, Scored
from pipeline.pool import REASONS, Pool, chunks
from pipeline.selection.top_n import Balance, Selection

if TYPE_CHECKING:
    import pyarrow as pa

Array = npt.NDArray[Any]


def schema() -> pa.Schema:
    """The columns of a list of keys."""
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


def export(path: Path, pool: Pool, rows: Array, weight: Array) -> None:
    """Writes the list of selected rows [n], ascending, with their weights [n]."""
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
class Found:
    """Rows [n] ascending of the listed images that the pool holds, with weights [n] and scores [n].

    missing: `source: key` of those that it does not; changed: of those whose bytes are others.
    A listed duplicate is kept, a protected image is not. num_listed: images in the list.
    """

    rows: Array
    weight: Array
    score: Array
    missing: list[str]
    changed: list[str]
    num_listed: int


def find(path: Path, pool: Pool) -> Found:
    """Looks the listed images up by source part and key, and checks their content hash.

    ArtifactError: no list of keys, an image that is listed twice, or none of it in the pool.
    Where some are missing or protected the weights of the others are scaled to mean 1.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = read(path)
    keys, content = table["key"].combine_chunks(), table["content_hash"].to_numpy()
    sources = table["source"].combine_chunks().dictionary_encode()
    number_of = {name: number for number, name in enumerate(sources.dictionary.to_pylist())}
    number = sources.indices.to_numpy()
    order = np.argsort(number, kind="stable")
    bounds = np.searchsorted(number[order], np.arange(len(number_of) + 1))
    row_of, changed = np.full(len(keys), -1, np.int64), np.zeros(len(keys), bool)
    for block in pool.blocks:
        if (one := number_of.get(block.source)) is None:
            continue
        mine = order[bounds[one] : bounds[one + 1]]
        in_block = pa.array(block.strings("key"), pa.string())
        at = pc.index_in(keys.take(pa.array(mine)), value_set=in_block).fill_null(-1).to_numpy()
        mine, local = mine[at >= 0], at[at >= 0]
        same = block.columns("content_hash")[0][local] == content[mine]
        row_of[mine[same]] = block.start + local[same]
        changed[mine[~same]] = True
    places = np.flatnonzero(row_of >= 0)
    if not len(places):
        raise ArtifactError(
            f"{path}: none of its {len(keys):,} images is in this corpus ({changed.sum():,} are, "
            "with other bytes): it was exported from another corpus"
        )
    places = places[np.argsort(row_of[places])]
    places = places[pool.column("reason")[row_of[places]] != REASONS.index("protected")]
    if not len(places):
        raise ArtifactError(
            f"{path}: --exclude-eval takes every image of it that is in this corpus"
        )
    weight, score = (table[name].to_numpy()[places] for name in ("weight", "score"))
    if len(places) < len(keys):
        weight = (weight / weight.mean(dtype=np.float64)).astype(np.float32)
    lost = [
        [f"{table['source'][place]}: {table['key'][place]}" for place in np.flatnonzero(which)]
        for which in ((row_of < 0) & ~changed, changed)
    ]
    return Found(row_of[places], weight, score, lost[0], lost[1], len(keys))


def read(path: Path) -> pa.Table:
    """The list, its columns checked."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ArtifactError(f"{path} cannot be read as a list of keys ({error})") from None
    lacking = [field.name for field in schema() if field.name not in table.column_names]
    if lacking or not len(table):
        reason = f"it has no column {', '.join(lacking)}" if lacking else "it is empty"
        mend = "`winnow select --export` makes one"
        raise ArtifactError(f"{path} is no list of keys: {reason}; {mend}")
    table = table.select(schema().names).cast(schema())
    if table.group_by(["source", "key"]).aggregate([]).num_rows < len(table):
        raise ArtifactError(f"{path} names an image twice: export it again")
    return table


@dataclass(frozen=True, kw_only=True)
class Config(Choice):
    """What is recorded of a selection by list; balance and weights are the list's own."""

    balance: Balance = "all"
    sha256: str = ""
    """Of the list."""


class Listed:
    """A list of keys in the place of a method: its scores are those of the list, else NaN."""

    Config = Config

    def __init__(self, path: Path) -> None:
        self.path = path

    def score(self, pool: Pool, config: Any, seed: int) -> Scored:
        """Blocks of {"score"}, float32 [n]."""
        found = find(self.path, pool)
        for block in pool.blocks:
            low, high = np.searchsorted(found.rows, [block.start, block.stop])
            score = np.full(len(block), np.nan, np.float32)
            score[found.rows[low:high] - block.start] = found.score[low:high]
            yield block, {"score": score}


def select(pool: Pool, path: Path, directory: Path) -> tuple[Selection, dict[str, Any]]:
    """Writes rows.npy and weight.npy of the listed images; what is kept, and a note for the card.

    The note: how many were asked for, and `source: key` of those missing or changed.
    """
    found = find(path, pool)
    for name, values in (("rows", found.rows), ("weight", found.weight)):
        npy.save(directory / f"{name}.npy", values)
    counts = np.zeros(len(REASONS), np.int64)
    for piece in chunks(len(pool)):
        counts += np.bincount(pool.column("reason")[piece], minlength=len(counts))
    counts -= np.bincount(pool.column("reason")[found.rows], minlength=len(counts))
    dropped = dict(zip((*REASONS[1:], "not_selected"), np.roll(counts, -1).tolist(), strict=True))
    histogram = np.bincount(pool.column("label")[found.rows], minlength=len(pool.classes))
    note = {"num_requested": found.num_listed, "missing": found.missing, "changed": found.changed}
    return Selection(len(found.rows), dropped, 0, histogram), note
