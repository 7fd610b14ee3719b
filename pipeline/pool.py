"""The pool: aligned columns over all N candidates, block by block, memory-mapped.

What a score may look at. Nothing here holds N rows of a matrix; a column of N numbers lives in a
`.npy` file that is mapped, not read.
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
from indexes.shards.reader import Shards, open_shards

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]
REASONS = ("candidate", "duplicate_content", "near_duplicate", "protected")
"""What the numbers in the column `reason` mean."""
RESERVED = {
    *COLUMNS, "key", "ext", "source", "source_offset", "weight", "logits", "logit_classes", "reason"
}  # fmt: skip


class Pool:
    """N candidates of one embedded corpus, seen through one teacher.

    classifier: (weight float32 [C, D], bias float32 [C]), the teacher's own last layer.
    column(name): a memory-mapped column [N] (indexes.embeddings.COLUMNS) or a score made before.
    scratch: the directory of the score columns; raw: that of the columns that every method may
    use; dedup: that of `reason`, uint8 [N], 0 for the rows that are candidates; selection: that
    of the selected rows.
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
        self._gathering = threading.Lock()  # shards are written by threads that ask for columns

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def blocks(self) -> list[Block]:
        """The blocks in pool order, each with its row range."""
        return self.embeddings.blocks

    def by_block(
        self, rows: npt.NDArray[np.int64]
    ) -> Iterator[tuple[Block, npt.NDArray[np.int64]]]:
        """Ascending pool rows [n] as (block, their numbers within it), block by block."""
        return self.embeddings.by_block(rows)

    def keys_of(self, rows: npt.NDArray[np.int64]) -> list[tuple[str, str]]:
        """(key, corpus part) of pool rows [n] in any order; their blocks alone are read."""
        return self.embeddings.keys_of(rows)

    def column(self, name: str) -> Array:
        """Column `name`, [N], memory-mapped: a score, or one of the embeddings' own columns.

        The latter are gathered from the blocks once, at first use, beside the embeddings.
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
        """Whether there is such a column."""
        return name in COLUMNS or self._score_path(name) is not None

    def _score_path(self, name: str) -> Path | None:
        paths = (folder / f"{name}.npy" for folder in self._folders)
        return next((path for path in paths if path.exists()), None)

    def fill(
        self, blocks: Iterable[tuple[Block, Mapping[str, Array]]], dtype: type = np.float32
    ) -> None:
        """Writes columns [N] from their blocks' values, given in pool order.

        Raises ValueError for a column that leaves rows out or takes a name of the pool's own.

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
            for block, columns in blocks:
                for name, values in columns.items():
                    values = np.asarray(values, dtype)
                    if name not in writers:
                        if dtype is not None and self._is_taken(name):
                            raise ValueError(f"a score may not be called {name!r}: it is taken")
                        file = npy.writing(folder / f"{name}.npy", (len(self),), values.dtype)
                        writers[name] = stack.enter_context(file)
                    num_rows = writers[name].num_rows
                    if num_rows != block.start or values.shape != (len(block),):
                        raise ValueError(
                            f"column {name!r} has {values.shape} values for rows {block.start} to "
                            f"{block.stop}, after {num_rows} rows: every block once, in order"
                        )
                    writers[name].write(values)
            short = [name for name, writer in writers.items() if writer.num_rows != len(self)]
            if short:
                raise ValueError(f"columns {short} end before the last of {len(self):,} rows")

    def _is_taken(self, name: str) -> bool:
        raw = self.raw is not None and (self.raw / f"{name}.npy").exists()
        return name in RESERVED or raw

    @property
    def scores(self) -> list[str]:
        """The names of the raw and the score columns made so far."""
        folders = [self.scratch, *([self.raw] if self.raw else [])]
        return sorted({path.stem for folder in folders for path in folder.glob("*.npy")})

    def class_counts(self) -> npt.NDArray[np.int64]:
        """Candidates that the teacher puts in each class, int64 [C]."""
        counts = np.zeros(len(self.classes), np.int64)
        for rows in chunks(len(self)):
            label, reason = self.column("label")[rows], self.column("reason")[rows]
            counts += np.bincount(label[reason == 0], minlength=len(counts))
        return counts

    def to_pandas(self) -> pd.DataFrame:
        """All N rows as one table in memory: key, source, class, every column, and `reason`.

        `reason` is why a row was dropped, such as near_duplicate or not_selected, else "kept";
        before a selection it is "candidate" for the rows that remain.

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
    """The whole pool that shards were selected from, with every column of that run.

    The teacher is found under RUNS by its digest unless it is given. Raises ArtifactError for
    shards that were not selected from a pool, or where an artifact of the run is gone.

    Example: `open_pool("runs/shards/demo-winnow-0123456789").to_pandas()`
    """
    shards = shards if isinstance(shards, Shards) else open_shards(shards)
    if "artifacts" not in shards.card:
        raise artifact.ArtifactError(f"{shards.directory} was not selected from a pool")
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
    """The teacher's last layer: weight float32 [C, D] and bias float32 [C]."""
    weight, bias = (value.detach().float().cpu().numpy() for value in teacher.head)
    return weight, bias


def chunks(total: int, size: int = 1 << 20) -> Iterator[slice]:
    """Slices of at most `size` rows that cover `total` rows in order."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def sortable_code(score: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """uint32 codes of float32 scores [n], in the same order; -0.0 is 0.0."""
    bits = (score + np.float32(0)).view(np.uint32)
    sign = (bits.view(np.int32) >> 31).view(np.uint32)
    code: npt.NDArray[np.uint32] = bits ^ (sign | np.uint32(1 << 31))
    return code
