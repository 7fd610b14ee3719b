"""The pool: aligned, memory-mapped columns over all N embedded images, block by block.

A score reads the pool. No function here holds a matrix of N rows in memory. A column of N numbers
is a `.npy` file that is memory-mapped.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexes import artifact, npy
from indexes.embeddings import COLUMNS, Block, Embeddings, open_embeddings
from indexes.models.teacher import Teacher, load_labeler
from indexes.plugins import PluginError
from indexes.shards.reader import Shards, open_shards

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]
REASONS = ("candidate", "duplicate_content", "near_duplicate", "protected")
"""The meaning of the numbers in the column `reason`, by position."""
RESERVED = {
    *COLUMNS, "key", "ext", "source", "source_offset", "weight", "logits", "logit_classes", "reason"
}  # fmt: skip


class Pool:
    """The N images of one corpus, embedded by one teacher.

    `classifier` is the teacher's last layer: (weight float32 [C, D], bias float32 [C]). The other
    arguments are directories. `scratch` holds the score columns. `raw` holds the columns that every
    method may use. `dedup` holds `reason`, uint8 [N], which is 0 for candidates. `selection` holds
    the selected rows.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        classifier: tuple[Array, Array],
        classes: tuple[str, ...],
        scratch: Path,
        *,
        raw: Path | None = None,
        dedup: Path | None = None,
        selection: Path | None = None,
    ) -> None:
        self.embeddings, self.classifier, self.classes = embeddings, classifier, classes
        self.scratch, self.raw, self.selection = scratch, raw, selection
        self._folders = [folder for folder in (scratch, raw, dedup) if folder is not None]
        self._gathering = threading.Lock()  # the threads that write shards read columns

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def blocks(self) -> list[Block]:
        """The blocks in the order of the pool, each with its range of rows."""
        return self.embeddings.blocks

    def by_block(
        self, rows: npt.NDArray[np.int64]
    ) -> Iterator[tuple[Block, npt.NDArray[np.int64]]]:
        """Yield (block, row numbers within it) of ascending pool rows [N], block by block."""
        return self.embeddings.by_block(rows)

    def keys_of(self, rows: npt.NDArray[np.int64]) -> list[tuple[str, str]]:
        """Return (key, corpus part) of pool rows [N] in any order; only their blocks are read."""
        return self.embeddings.keys_of(rows)

    def column(self, name: str) -> Array:
        """Return the column `name` [N], memory-mapped: a score or a column of the embeddings.

        A column of the embeddings is gathered from the blocks at first use and then kept beside
        the embeddings.
        """
        path = self._score_path(name)
        if path is None:
            folder = self.embeddings.directory / "columns"
            path = folder / f"{name}.npy"
            with self._gathering, artifact.locked(folder):
                if not path.exists():
                    blocks = ((block, {name: block.columns(name)[0]}) for block in self.blocks)
                    self._write(folder, blocks)
        column: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        return column

    def has(self, name: str) -> bool:
        """Whether the pool has the column `name`."""
        return name in COLUMNS or self._score_path(name) is not None

    def _score_path(self, name: str) -> Path | None:
        paths = (folder / f"{name}.npy" for folder in self._folders)
        return next((path for path in paths if path.exists()), None)

    def fill(
        self, blocks: Iterable[tuple[Block, Mapping[str, Array]]], dtype: type = np.float32
    ) -> None:
        """Write columns [N] from the values of each block, in the order of the pool.

        Raises ValueError for a column that omits rows or has a name that is taken.

        Example: `pool.fill((block, {"score": values(block)}) for block in pool.blocks)`
        """
        self._write(self.scratch, blocks, dtype)

    def _write(
        self,
        folder: Path,
        blocks: Iterable[tuple[Block, Mapping[str, Array]]],
        dtype: Any = None,
    ) -> None:
        with contextlib.ExitStack() as stack:
            writers: dict[str, npy.NpyWriter] = {}
            for item in blocks:
                if not (isinstance(item, tuple) and len(item) == 2):
                    raise PluginError(
                        f"score() gave {type(item).__name__}: yield a block and its columns, such "
                        'as `yield block, {"score": values}`, for every block'
                    )
                block, columns = item
                for name, values in columns.items():
                    values = np.asarray(values, dtype)
                    if name not in writers:
                        if dtype is not None and self._is_taken(name):
                            raise ValueError(f"a score cannot be named {name!r}: it is taken")
                        file = npy.writing(folder / f"{name}.npy", (len(self),), values.dtype)
                        writers[name] = stack.enter_context(file)
                    num_rows = writers[name].num_rows
                    if num_rows != block.start or values.shape != (len(block),):
                        raise ValueError(
                            f"column {name!r} has values of shape {values.shape} for rows "
                            f"{block.start} to {block.stop}, after {num_rows} rows: give one value "
                            "per row, and every block once, in order"
                        )
                    writers[name].write(values)
            short = [name for name, writer in writers.items() if writer.num_rows != len(self)]
            if short:
                raise ValueError(
                    f"columns {short} end before the last of {len(self):,} rows: yield every block"
                )

    def _is_taken(self, name: str) -> bool:
        raw = self.raw is not None and (self.raw / f"{name}.npy").exists()
        return name in RESERVED or raw

    @property
    def scores(self) -> list[str]:
        """The names of the raw columns and of the score columns that exist."""
        folders = [self.scratch, *([self.raw] if self.raw else [])]
        return sorted({path.stem for folder in folders for path in folder.glob("*.npy")})

    def class_counts(self) -> npt.NDArray[np.int64]:
        """Return the number of candidates per predicted class, int64 [C]."""
        counts = np.zeros(len(self.classes), np.int64)
        for rows in chunks(len(self)):
            label, reason = self.column("label")[rows], self.column("reason")[rows]
            counts += np.bincount(label[reason == 0], minlength=len(counts))
        return counts

    def to_pandas(self) -> pd.DataFrame:
        """Return all N rows as a table in memory: key, source, class, every column, and `reason`.

        `reason` says why a row was dropped, such as near_duplicate or not_selected, and is "kept"
        for selected rows. Without a selection, it is "candidate" for rows that remain.

        Example: `open_pool(shards).to_pandas().groupby("reason").log_odds.describe()`
        """
        import pandas as pd

        names, codes = list(REASONS), np.array(self.column("reason"))
        if self.selection is not None:
            names = ["not_selected", *REASONS[1:], "kept"]
            rows = np.load(self.selection / "rows.npy", mmap_mode="r", allow_pickle=False)
            codes[rows] = len(REASONS)
        columns = {name: self.column(name) for name in dict.fromkeys([*COLUMNS, *self.scores])}
        return pd.DataFrame(
            {
                "key": [key for block in self.blocks for key in block.strings("key")],
                "source": [block.source for block in self.blocks for _ in range(len(block))],
                "class": np.array(self.classes, object)[columns["label"]],
                **columns,
                "reason": pd.Categorical.from_codes(codes, names),
            }
        )


def open_pool(
    shards: Shards | str | Path, runs: str | Path = "runs", teacher: Teacher | None = None
) -> Pool:
    """Open the pool from which shards were selected, with every column of that run.

    Unless `teacher` is given, the teacher is found under RUNS by its digest. Raises ArtifactError
    for shards that were not selected from a pool, and if an artifact of the run is missing.

    Example: `open_pool("runs/shards/demo-winnow-0123456789").to_pandas()`
    """
    shards = shards if isinstance(shards, Shards) else open_shards(shards)
    if "artifacts" not in shards.card:
        raise artifact.ArtifactError(
            f"{shards.directory} was not selected from a pool: give shards of `winnow select`"
        )
    directories = {kind: Path(runs, kind, name) for kind, name in shards.card["artifacts"].items()}
    for kind, directory in directories.items():
        artifact.read_card(directory, kind)
    return Pool(
        open_embeddings(directories["embeddings"]),
        classifier_of(teacher or load_labeler(shards, None, runs)),
        shards.classes,
        directories["scores"],
        raw=directories["columns"],
        dedup=directories["dedup"],
        selection=directories["selection"],
    )


def classifier_of(teacher: Teacher) -> tuple[Array, Array]:
    """Return the teacher's last layer: weight float32 [C, D] and bias float32 [C]."""
    weight, bias = (value.detach().float().cpu().numpy() for value in teacher.head)
    return weight, bias


def chunks(total: int, size: int = 1 << 20) -> Iterator[slice]:
    """Yield slices of at most `size` rows that cover `total` rows in order.

    Example:
        >>> list(chunks(5, 3))
        [slice(0, 3, None), slice(3, 5, None)]
    """
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def sortable_code(score: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Return uint32 codes [N] that sort like the float32 scores [N]; -0.0 counts as 0.0.

    Example:
        >>> sortable_code(np.array([-1, 0, 2], np.float32)).argsort().tolist()
        [0, 1, 2]
    """
    bits = (score + np.float32(0)).view(np.uint32)
    sign = (bits.view(np.int32) >> 31).view(np.uint32)
    code: npt.NDArray[np.uint32] = bits ^ (sign | np.uint32(1 << 31))
    return code
