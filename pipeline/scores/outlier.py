"""Outlier score: how far an image's feature lies from the prototypes of its predicted class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.embeddings import Block
from indexes.vectors.index import normalize_rows
from indexes.vectors.index import train_kmeans as find_clusters
from pipeline.pool import Pool

Array = npt.NDArray[Any]


def distance(features_ND: Array, label_N: Array, prototypes_CMD: Array) -> Array:
    """o = min_m (1 - cos(h, mu_{y,m})), float32 [n], in [0, 2] (ODSD, REC .45-.75).

    prototypes_CMD: unit vectors, M per class. Work is done class by class: n x M x D.
    """
    features = normalize_rows(features_ND)
    result = np.zeros(len(features), np.float32)
    order = np.argsort(label_N, kind="stable")
    bounds = np.searchsorted(label_N[order], np.arange(len(prototypes_CMD) + 1))
    for label, prototypes in enumerate(prototypes_CMD):
        rows = order[bounds[label] : bounds[label + 1]]
        if len(rows):
            result[rows] = 1.0 - (features[rows] @ prototypes.T).max(axis=1)
    return result


def classifier_rows(pool: Pool) -> Array:
    """Prototypes [C, 1, D]: the rows of the teacher's classifier (OURS: no cluster can capture)."""
    return normalize_rows(pool.classifier[0])[:, None, :]


def kmeans(pool: Pool, num_prototypes: int, seed: int, sample: int = 262_144) -> Array:
    """Prototypes [C, M, D]: spherical k-means of each predicted class (FAISS), REC .6.

    Trained on a seeded sample of the candidates, never on the first rows. A class with fewer rows
    than `num_prototypes` repeats what it has; one that nobody predicts gets its classifier row.
    """
    generator = np.random.default_rng(seed)
    drawn, labels = [], []
    for block in pool.blocks:
        chosen = generator.random(len(block)) < sample / max(len(pool), 1)
        chosen &= pool.column("reason")[block.start : block.stop] == 0
        drawn.append(normalize_rows(block.matrix("features")[chosen]))
        labels.append(block.columns("label")[0][chosen])
    features, label = np.concatenate(drawn), np.concatenate(labels)
    fallback = classifier_rows(pool)
    result = np.repeat(fallback, num_prototypes, axis=1)
    for one in range(len(pool.classes)):
        mine = features[label == one]
        if len(mine) > num_prototypes:
            result[one] = find_clusters(mine, num_prototypes, seed=seed, spherical=True)
        elif len(mine):
            result[one] = mine[np.arange(num_prototypes) % len(mine)]
    return result


def score(pool: Pool, prototypes: Array) -> Iterator[tuple[Block, dict[str, Array]]]:
    """Blocks of {"outlier_kmeans"}: the distance of every row to prototypes of one's own."""
    for block in pool.blocks:
        (label,) = block.columns("label")
        yield block, {"outlier_kmeans": distance(block.matrix("features"), label, prototypes)}
