"""Exact copies: rows with the same bytes as an earlier row, found in bounded memory."""

from __future__ import annotations

import numpy as np

from pipeline.dedup.near import Groups
from pipeline.pool import Pool, chunks

BUCKET_ROWS = 1 << 24


def find_copies(pool: Pool, bucket_rows: int = BUCKET_ROWS) -> Groups:
    """Return the rows with the content hash and size of an earlier row, grouped with that row.

    Hash buckets bound the memory: one bucket of about `bucket_rows` rows is sorted at a time.
    """
    content, size = pool.column("content_hash"), pool.column("size")
    num_buckets = np.uint64(max(1, -(-len(pool) // bucket_rows)))
    copies, originals = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for bucket in range(int(num_buckets)):
        rows = np.concatenate(
            [
                np.flatnonzero(content[piece] % num_buckets == np.uint64(bucket)) + piece.start
                for piece in chunks(len(pool))
            ]
            or [np.zeros(0, np.int64)]
        )
        hashes, sizes = content[rows], size[rows]
        order = np.lexsort((rows, sizes, hashes))
        hashes, sizes, rows = hashes[order], sizes[order], rows[order]
        is_copy = np.zeros(len(rows), bool)
        is_copy[1:] = (hashes[1:] == hashes[:-1]) & (sizes[1:] == sizes[:-1])
        first = np.maximum.accumulate(np.where(is_copy, 0, np.arange(len(rows))))
        copies.append(rows[is_copy])
        originals.append(rows[first[is_copy]])
    rows, kept = np.concatenate(copies), np.concatenate(originals)
    order = np.argsort(rows)
    return Groups(rows[order], kept[order], np.ones(len(rows), np.float32))
