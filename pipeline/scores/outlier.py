"""The outlier score: how far an image's feature is from the prototypes of its predicted class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.embeddings import Block
from indexes.vectors.index import normalize_rows, train_kmeans
from pipeline.pool import Pool

Floats = npt.NDArray[np.float32]


def outlier_distance(
    features_ND: npt.NDArray[np.floating[Any]],
    label_N: npt.NDArray[np.int32],
    prototypes_CMD: Floats,
) -> Floats:
    """Return o = min over m of (1 - cos(h, mu_{y,m})), float32 [N] in [0, 2] (ODSD, REC .45-.75).

    features_ND: features h [N, D]. label_N: predicted classes y [N]. prototypes_CMD: M unit vectors
    per class [C, M, D]. The work is N x M x D, class by class.

    Example:
        >>> prototypes = np.eye(2, dtype=np.float32)[:, None]
        >>> outlier_distance(np.array([[2.0, 0.0]]), np.array([1], np.int32), prototypes).tolist()
        [1.0]
    """
    features = normalize_rows(features_ND)
    distance = np.zeros(len(features), np.float32)
    order = np.argsort(label_N, kind="stable")
    bounds = np.searchsorted(label_N[order], np.arange(len(prototypes_CMD) + 1))
    for label, prototypes in enumerate(prototypes_CMD):
        rows = order[bounds[label] : bounds[label + 1]]
        if len(rows):
            distance[rows] = 1.0 - (features[rows] @ prototypes.T).max(axis=1)
    return distance


def classifier_prototypes(pool: Pool) -> Floats:
    """Return prototypes [C, 1, D]: the rows of the teacher's classifier.

    They do not depend on the corpus, so that clusters of irrelevant images have no influence
    (OURS).
    """
    return normalize_rows(pool.classifier[0])[:, None, :]


def kmeans_prototypes(pool: Pool, num_prototypes: int, seed: int, sample: int = 262_144) -> Floats:
    """Return prototypes [C, M, D] by spherical k-means in each predicted class (FAISS), REC .6.

    k-means is trained on a seeded sample of the candidates, not on the first rows. A class with
    fewer rows than `num_prototypes` repeats its rows. A class that is never predicted gets its
    classifier row.
    """
    generator = np.random.default_rng(seed)
    sampled, labels = [], []
    for block in pool.blocks:
        chosen = generator.random(len(block)) < sample / max(len(pool), 1)
        chosen &= pool.column("reason")[block.start : block.stop] == 0
        sampled.append(normalize_rows(block.matrix("features")[chosen]))
        labels.append(block.columns("label")[0][chosen])
    features, label = np.concatenate(sampled), np.concatenate(labels)
    prototypes = np.repeat(classifier_prototypes(pool), num_prototypes, axis=1)
    for number in range(len(pool.classes)):
        members = features[label == number]
        if len(members) > num_prototypes:
            prototypes[number] = train_kmeans(members, num_prototypes, seed=seed)
        elif len(members):
            prototypes[number] = members[np.arange(num_prototypes) % len(members)]
    return prototypes


def kmeans_column(pool: Pool, prototypes: Floats) -> Iterator[tuple[Block, dict[str, Floats]]]:
    """Yield blocks of {"outlier_kmeans"}: the distance [N] of rows to prototypes [C, M, D]."""
    for block in pool.blocks:
        (label,) = block.columns("label")
        yield (
            block,
            {"outlier_kmeans": outlier_distance(block.matrix("features"), label, prototypes)},
        )
