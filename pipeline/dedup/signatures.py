"""An index of the pool's signatures: whom each row, or a stranger, may be a duplicate of."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes import npy
from indexes.vectors.build import VectorPart, build_index
from indexes.vectors.index import Vectors
from pipeline.dedup.similarity import signatures
from pipeline.pool import Pool

Array = npt.NDArray[Any]
NUM_NEIGHBORS = 10
SIMILAR = 0.8
"""Signatures less similar than this hardly ever belong to an alike pair: one in a hundred crops."""
FOUND = 0.999
"""Share of the neighbors that are found, by measurement on held-out rows."""


def of_pool(pool: Pool, directory: Path) -> Vectors:
    """An index of every row's signature, in `directory`, which is the caller's to delete.

    Memory: the index's budget, whatever the pool.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "signatures.npy"
    width = signatures(pool.blocks[0].matrix("thumb")[:1]).shape[1]
    with npy.writing(path, (len(pool), width), np.float16) as writer:
        for block in pool.blocks:
            writer.write(signatures(block.matrix("thumb")).astype(np.float16))
    rows: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return indexed(((block.start, rows[block.start : block.stop]) for block in pool.blocks), path)


def of_thumbs(thumbs: Array, directory: Path) -> Vectors:
    """The same of a few thumbs [n, WIDTH]."""
    directory.mkdir(parents=True, exist_ok=True)
    return indexed([(0, signatures(thumbs))], directory / "signatures.npy")


def indexed(pieces: Iterable[tuple[int, Array]], path: Path) -> Vectors:
    """An index beside `path` of pieces (first row, signatures [n, D])."""
    parts = [
        VectorPart(f"from {start}", len(rows), partial(np.asarray, rows)) for start, rows in pieces
    ]
    build_index(path.with_suffix(""), parts, recall=FOUND, close=SIMILAR)
    return Vectors(path.with_suffix(""))
