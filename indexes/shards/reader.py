"""Read curated WebDataset shards, which hold the teacher's targets beside the images.

A directory of shards holds:

- `shard-000000.tar`: image, json and npy members, which stock webdataset reads;
- `shard-000000.parquet`, the sidecar: every column, the targets and the tar offsets, so that
  analysis and re-weighting need no tar;
- `card.json`, written last (indexes.shards.writer).

N samples, K stored logits, C classes.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexes import artifact
from indexes.artifact import ArtifactError
from indexes.shards import sidecar

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]
MAX_OPEN = 64


def shard_name(number: int) -> str:
    """Return the file name of a shard.

    Example:
        >>> shard_name(3)
        'shard-000003.tar'
    """
    return f"shard-{number:06d}.tar"


class Shards:
    """An opened set of shards: columns are read into memory, images by their offset in a tar.

    `keys` is [N] str, `columns` maps names to [N], `logits` is float16 [N, K] and `logit_classes`
    int32 [N, K], or None if K = C. The targets are the teacher's logits for the canonical view (a
    center crop).
    """

    def __init__(self, directory: Path, card: dict[str, Any]) -> None:
        self.directory, self.card = Path(directory), card
        self.classes = tuple(card["classes"])
        self.teacher_digest = str(card["teacher"]["digest"])
        self.input_size = int(card["teacher"]["input_size"])
        self.tars = [self.directory / file["name"] for file in card["files"]]
        sizes = [int(file["num_samples"]) for file in card["files"]]
        self._shard_of = np.repeat(np.arange(len(sizes)), sizes)
        self._open: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._shard_of)

    @property
    def funnel(self) -> dict[str, Any]:
        """The counts `in`, `dropped` by reason and `kept`."""
        return dict(self.card["funnel"])

    @property
    def certificate(self) -> dict[str, float]:
        """The figures of the selection by name (pipeline.certificate); empty if synthetic."""
        return dict(self.card.get("certificate", {}))

    def to_pandas(self) -> pd.DataFrame:
        """Return the sidecars as one table in memory, with a row per image in shard order.

        The columns are key, label, class, weight and source, then all others: scores, logsumexp
        and the position of the image. The logits are in `logits`.

        Example: `open_shards("runs/shards/NAME").to_pandas().groupby("class").weight.sum()`
        """
        import pandas as pd

        columns = dict(self.columns)
        label, weight = columns.pop("label"), columns.pop("weight")
        return pd.DataFrame(
            {
                "key": self.keys.tolist(),
                "label": label,
                "class": np.array(self.classes, object)[label],
                "weight": weight,
                "source": self.sources.tolist(),
                **columns,
            }
        )

    def check_teacher(self, digest: str) -> None:
        """Check that the teacher with this digest labeled these shards.

        Raises ArtifactError if another teacher did.
        """
        if self.teacher_digest != digest:
            raise ArtifactError(
                f"{self.directory} was labeled by another teacher ({self.teacher_digest[:12]}, "
                f"not {digest[:12]}): name that teacher, or select again with this one"
            )

    @cached_property
    def keys(self) -> Array:
        """The keys [N] str, in shard order."""
        return self._strings("key")

    @cached_property
    def sources(self) -> Array:
        """The corpus part of each image, [N] str."""
        return self._strings("source")

    def _strings(self, name: str) -> Array:
        import pyarrow.parquet as pq

        parts = [pq.read_table(self._sidecar(tar), columns=[name])[name] for tar in self.tars]
        values = [value for part in parts for value in part.to_pylist()]
        return np.array(values, dtype=np.dtypes.StringDType())

    @cached_property
    def columns(self) -> dict[str, Array]:
        """Every numeric column [N]: label, weight, key_hash, logsumexp, scores, offsets."""
        import pyarrow.parquet as pq

        schema = pq.read_schema(self._sidecar(self.tars[0]))
        skip = {"key", "ext", "source", "logits", "logit_classes"}
        names = [name for name in schema.names if name not in skip]
        parts = [sidecar.read_columns(self._sidecar(tar), names) for tar in self.tars]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    @cached_property
    def logits(self) -> Array:
        """The logits float16 [N, K]: all of them if K = C, else those of `logit_classes`."""
        return np.concatenate(
            [sidecar.read_matrix(self._sidecar(tar), "logits") for tar in self.tars]
        )

    @cached_property
    def logit_classes(self) -> Array | None:
        """The classes int32 [N, K] of the logits, or None if every logit is stored."""
        import pyarrow.parquet as pq

        if "logit_classes" not in pq.read_schema(self._sidecar(self.tars[0])).names:
            return None
        parts = [sidecar.read_matrix(self._sidecar(tar), "logit_classes") for tar in self.tars]
        return np.concatenate(parts)

    def read(self, row: int) -> bytes:
        """Return the encoded bytes of the image in row `row`.

        Raises ArtifactError if the tar is truncated.
        """
        shard = int(self._shard_of[row])
        size, offset = int(self.columns["size"][row]), int(self.columns["offset"][row])
        data = os.pread(self._file(shard), size, offset)
        if len(data) != size:
            raise ArtifactError(f"{self.tars[shard]} is truncated: make the shards again")
        return data

    def _file(self, shard: int) -> int:
        if shard not in self._open:
            if len(self._open) >= MAX_OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[shard] = os.open(self.tars[shard], os.O_RDONLY)
        self._open.move_to_end(shard)
        return self._open[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __del__(self) -> None:
        for handle in self.__dict__.get("_open", {}).values():
            os.close(handle)

    @staticmethod
    def _sidecar(tar: Path) -> Path:
        return tar.with_suffix(".parquet")


def open_shards(directory: str | Path, *, teacher_digest: str | None = None) -> Shards:
    """Open a finished set of shards.

    Raises ArtifactError if the set is unfinished or of another schema, if a file is missing or has
    another size, or if a teacher other than that of `teacher_digest` labeled it.

    Example: `open_shards("runs/shards/lake-winnow-0123456789").columns["weight"]`
    """
    directory = Path(directory)
    card = artifact.read_card(directory, "shards")
    missing = [name for name in ("files", "teacher", "classes", "num_samples") if name not in card]
    names = [str(file.get("name")) for file in card.get("files", [])]
    if missing or names != [shard_name(number) for number in range(len(names))]:
        raise ArtifactError(
            f"{directory / artifact.CARD} is not the card of a set of shards: make it again"
        )
    for file in card["files"]:
        tar = directory / file["name"]
        size = tar.stat().st_size if tar.is_file() else None
        if size != file["bytes"] or not tar.with_suffix(".parquet").is_file():
            state = "is missing" if size is None else f"has {size} bytes, not {file['bytes']}"
            if size == file["bytes"]:
                state = "has no sidecar (.parquet)"
            raise ArtifactError(f"{tar} {state}: delete {directory} and make the shards again")
    shards = Shards(directory, card)
    if teacher_digest is not None:
        shards.check_teacher(teacher_digest)
    return shards
