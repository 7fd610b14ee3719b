"""The raw columns, which every method may rank by, written once per embedded corpus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from indexes.embeddings import Block
from pipeline.pool import Pool
from pipeline.scores.bn_distance import bn_distance
from pipeline.scores.class_name import class_name_similarity
from pipeline.scores.density import class_density
from pipeline.scores.energy import energy
from pipeline.scores.knn_distance import K, knn_distance
from pipeline.scores.outlier import classifier_prototypes, outlier_distance

Floats = npt.NDArray[np.float32]

# Name: meaning, and when it is absent. The first two are columns of the embeddings.
COLUMNS = {
    "log_odds": "log-odds of the predicted class against all others, in nats: confidence",
    "entropy": "entropy of the teacher's softmax, in nats",
    "energy": "logsumexp of the logits: evidence for any class at all",
    "outlier": "1 - cosine to the classifier row of the predicted class",
    "scarcity": "1 - images of the predicted class / images of the largest class",
    "compactness": "1 - mean outlier of the predicted class / largest mean outlier of a class",
    "knn_distance": f"1 - cosine to the {K}th nearest other image, copies included",
    "bn_distance": "log distance to the teacher's BatchNorm statistics; needs BatchNorm",
    "proxy_kl": "divergence of small probes from the teacher; needs at least 1,280 candidates",
    "class_name": "cosine to the name of the predicted class; only with --tower",
}


def fill(pool: Pool, nearest: Iterable[Floats], names_CE: Floats | None = None) -> None:
    """Write the raw columns for which the pool has the data into its scratch directory.

    nearest: for each block the cosines [N, K] of its rows to their K nearest other rows, best
    first. names_CE: unit vectors [C, E] of the class names, if the corpus was embedded with a
    tower. OURS.
    """
    pool.fill(_of_images(pool, nearest, names_CE))
    counts, sums = pool.class_counts(), np.zeros(len(pool.classes))
    for block in pool.blocks:
        rows = slice(block.start, block.stop)
        free = pool.column("reason")[rows] == 0
        label, distance = pool.column("label")[rows][free], pool.column("outlier")[rows][free]
        sums += np.bincount(label, distance, len(sums))
    scarce = class_density("scarcity", counts)
    compact = class_density("compactness", counts, sums / np.maximum(counts, 1))
    labels = ((block, block.columns("label")[0]) for block in pool.blocks)
    pool.fill((b, {"scarcity": scarce[y], "compactness": compact[y]}) for b, y in labels)


def _of_images(
    pool: Pool, nearest: Iterable[Floats], names_CE: Floats | None
) -> Iterator[tuple[Block, dict[str, Floats]]]:
    prototypes = classifier_prototypes(pool)
    for block, cosines in zip(pool.blocks, nearest, strict=True):
        label, logsumexp = block.columns("label", "logsumexp")
        columns = {
            "energy": energy(logsumexp),
            "outlier": outlier_distance(block.matrix("features"), label, prototypes),
            "knn_distance": knn_distance(cosines),
        }
        if block.has("bn"):
            columns["bn_distance"] = bn_distance(block.matrix("bn"))
        if names_CE is not None:
            columns["class_name"] = class_name_similarity(block.matrix("tower"), names_CE, label)
        yield block, columns
