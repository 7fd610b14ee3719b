"""An index of the pool's signatures, which finds the possible duplicates of an image."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexes import npy
from indexes.images.decode import Pixels
from indexes.vectors.build import VectorPart, build_index
from indexes.vectors.index import Vectors
from indexes.vectors.plan import IndexConfig
from pipeline.dedup.similarity import signatures
from pipeline.pool import Pool

NUM_NEIGHBORS = 10
CANDIDATE_THRESHOLD = 0.8
"""Least similarity of two signatures for a candidate pair. One in a hundred pairs of a picture and
its crop is less similar."""
RECALL = 0.999
"""Share of the true neighbors that the index finds, measured on held-out rows."""


def index_pool(pool: Pool, directory: Path) -> Vectors:
    """Build an index of every row's signature in `directory`, which the caller deletes.

    Memory: the index's budget, whatever the size of the pool.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "signatures.npy"
    width = signatures(pool.blocks[0].matrix("thumb")[:1]).shape[1]
    with npy.writing(path, (len(pool), width), np.float16) as writer:
        for block in pool.blocks:
            writer.write(signatures(block.matrix("thumb")).astype(np.float16))
    rows: npt.NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
    pieces = ((block.start, rows[block.start : block.stop]) for block in pool.blocks)
    return _built(pieces, path.with_suffix(""))


def index_thumbs(thumbs: Pixels, directory: Path) -> Vectors:
    """Build an index of the signatures of a few thumbs uint8 [n, WIDTH]."""
    directory.mkdir(parents=True, exist_ok=True)
    return _built([(0, signatures(thumbs))], directory / "signatures")


def _built(pieces: Iterable[tuple[int, npt.NDArray[np.floating]]], directory: Path) -> Vectors:
    """Build an index of pieces (first row, signatures [n, D])."""
    parts = [
        VectorPart(f"from {start}", len(rows), partial(np.asarray, rows)) for start, rows in pieces
    ]
    build_index(directory, parts, IndexConfig(recall=RECALL, close=CANDIDATE_THRESHOLD))
    return Vectors(directory)
