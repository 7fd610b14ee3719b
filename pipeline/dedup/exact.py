"""Copies: rows whose bytes an earlier row has, found bucket by bucket in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.dedup.near import Groups
from pipeline.pool import Pool, chunks

Array = npt.NDArray[Any]
BUCKET_ROWS = 1 << 24


def find(pool: Pool, bucket_rows: int = BUCKET_ROWS) -> Groups:
    """Rows whose bytes an earlier row has: content hash and size are the same.

    Hash buckets bound the memory: one bucket of about `bucket_rows` rows is sorted at a time.
    """
    content, size = pool.column("content_hash"), pool.column("size")
    buckets = np.uint64(max(1, -(-len(pool) // bucket_rows)))
    found, firsts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for bucket in range(int(buckets)):
        rows = np.concatenate(
            [
                np.flatnonzero(content[piece] % buckets == np.uint64(bucket)) + piece.start
                for piece in chunks(len(pool))
            ]
            or [np.zeros(0, np.int64)]
        )
        hashes, sizes = content[rows], size[rows]
        order = np.lexsort((rows, sizes, hashes))
        hashes, sizes, rows = hashes[order], sizes[order], rows[order]
        same = np.zeros(len(rows), bool)
        same[1:] = (hashes[1:] == hashes[:-1]) & (sizes[1:] == sizes[:-1])
        first = np.maximum.accumulate(np.where(same, 0, np.arange(len(rows))))
        found.append(rows[same])
        firsts.append(rows[first[same]])
    every, kept = np.concatenate(found), np.concatenate(firsts)
    order = np.argsort(every)
    return Groups(every[order], kept[order], np.ones(len(every), np.float32))
