"""A pool that consists only of columns, the input of the selection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.embeddings import Embeddings
from pipeline.pool import Pool


def pool_of(directory: Path, num_classes: int, **columns: npt.NDArray[Any]) -> Pool:
    """Make a Pool of the given columns [N]: score, label, log_odds, key_hash, reason."""
    directory.mkdir(parents=True, exist_ok=True)
    dtypes = {"label": np.int32, "key_hash": np.uint64, "reason": np.uint8}
    for name, values in columns.items():
        np.save(directory / f"{name}.npy", np.asarray(values, dtypes.get(name, np.float32)))
    embeddings = Embeddings(directory, {"num_samples": len(columns["score"]), "parts": []})
    classes = tuple(f"class{number}" for number in range(num_classes))
    classifier = np.zeros((num_classes, 1), np.float32), np.zeros(num_classes, np.float32)
    return Pool(embeddings, classifier, classes, directory)
