"""A small handmade embedded pool, to test scores, selection and sharding."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes import embeddings
from indexes.embeddings import open_embeddings
from pipeline.pool import Pool

Array = npt.NDArray[Any]


def make_pool(
    directory: Path,
    *,
    label: Array,
    log_odds: Array,
    content: Array | None = None,
    reason: Array | None = None,
    features: Array | None = None,
    num_classes: int = 3,
    blocks: tuple[int, ...] = (),
    matrices: Mapping[str, Array] | None = None,
    columns: Mapping[str, Array] | None = None,
) -> Pool:
    """Make a pool of len(label) rows in parts of the given sizes (default: one part).

    `matrices` and `columns` replace or extend the default ones.
    """
    total = len(label)
    width = 4
    if features is None:
        features = np.random.default_rng(0).normal(size=(total, width))
    content = np.arange(total) if content is None else content
    sizes = blocks or (total,)
    embedded = directory / "embeddings"
    embedded.mkdir(parents=True)
    start = 0
    for number, size in enumerate(sizes):
        rows = slice(start, start + size)
        block_columns = {name: np.zeros(size, dtype) for name, dtype in embeddings.COLUMNS.items()}
        block_columns |= {
            "label": label[rows],
            "log_odds": log_odds[rows],
            "entropy": -log_odds[rows],
            "content_hash": content[rows].astype(np.uint64),
            "size": np.full(size, 10),
            "key_hash": np.arange(start, start + size, dtype=np.uint64)[::-1],
        }
        block_columns |= {name: column[rows] for name, column in (columns or {}).items()}
        keys = [f"k{row}" for row in range(start, start + size)]
        stored = {
            "features": features,
            "logits": np.zeros((total, num_classes)),
            **(matrices or {}),
        }
        stored = {
            n: m[rows].astype(np.float16 if m.dtype.kind == "f" else m.dtype)
            for n, m in stored.items()
        }
        strings = {"key": keys, "ext": ["jpg"] * size}
        embeddings.write_block(embedded, number, 0, stored, block_columns, strings)
        manifest = {
            "name": f"p{number}",
            "blocks": [size],
            "found": size,
            "dropped": {},
            "damage": "",
        }
        embeddings.finish_part(embedded, number, manifest)
        start += size
    embeddings.finish(embedded, len(sizes), {})
    weight = np.eye(num_classes, features.shape[1], dtype=np.float32)
    classes = tuple(f"class{number}" for number in range(num_classes))
    scratch = directory / "scores"
    classifier = (weight, np.zeros(num_classes, np.float32))
    dedup = directory / "dedup"
    dedup.mkdir()
    np.save(dedup / "reason.npy", np.zeros(total, np.uint8) if reason is None else reason)
    return Pool(open_embeddings(embedded), classifier, classes, scratch, dedup=dedup)
