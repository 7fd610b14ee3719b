"""The sidecar of a shard: every column, the targets and the tar offsets in one Parquet file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexes import artifact
from indexes.artifact import ArtifactError

if TYPE_CHECKING:
    import pyarrow as pa

Array = npt.NDArray[Any]
# The columns of every sidecar, and `requested`, which only synthetic images have: the class that
# the generator was asked for. Score columns (float32) may follow.
COLUMNS: dict[str, Any] = {
    "offset": np.int64,
    "size": np.int64,
    "label": np.int32,
    "weight": np.float32,
    "logsumexp": np.float32,
    "key_hash": np.uint64,
    "source_offset": np.int64,
    "requested": np.int32,
}


def _matrix(rows: Array) -> pa.Array:
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])


def write(
    path: Path,
    strings: Mapping[str, list[str]],
    columns: Mapping[str, Array],
    logits: Array,
    logit_classes: Array | None,
    metadata: dict[str, str],
) -> None:
    """Write a sidecar atomically: strings and columns [n], logits [n, K], their classes [n, K]."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {name: pa.array(values, pa.string()) for name, values in strings.items()}
    for name, column in columns.items():
        arrays[name] = pa.array(column.astype(COLUMNS.get(name, np.float32)))
    arrays["logits"] = _matrix(np.asarray(logits, np.float16))
    if logit_classes is not None:
        arrays["logit_classes"] = _matrix(np.asarray(logit_classes, np.int32))
    table = pa.table(arrays).replace_schema_metadata(metadata)
    with artifact.writing(path) as aside:
        pq.write_table(table, aside, compression="zstd")


def manifest(sidecar: Path) -> dict[str, str]:
    """Return the metadata of a sidecar: the plan, and the size and sha256 of its tar.

    Raises ArtifactError if the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(sidecar).metadata or {}
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtifactError(f"{sidecar} is damaged ({error}): delete its folder") from None
    return {key.decode(): value.decode() for key, value in metadata.items()}


def read_columns(sidecar: Path, names: Sequence[str]) -> dict[str, Array]:
    """Return numeric columns [n] by name."""
    import pyarrow.parquet as pq

    table = pq.read_table(sidecar, columns=list(names))
    return {name: table[name].to_numpy() for name in names}


def read_matrix(sidecar: Path, name: str) -> Array:
    """Return a column of fixed-size lists as a matrix [n, K]."""
    import pyarrow.parquet as pq

    column = pq.read_table(sidecar, columns=[name])[name].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    matrix: Array = flat.reshape(len(column), -1)
    return matrix
