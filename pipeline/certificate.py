"""The certificate of a selection: figures that describe its quality without labels.

Units: sd and var refer to the running statistics of the teacher's last BatchNorm, per channel; frac
is 0-1. Weighted figures count each image by its weight; all others count each image once. The
column "better" gives the direction that favors a selection, all else equal. A "?" marks figures
whose direction only a trained student shows (`python -m benchmarks.selections`).

====================== ============= ====== ==================================================
key                    unit          better what it is
====================== ============= ====== ==================================================
moment_rms             sd and var    lower  root mean square of the 2K weighted mean moments
moment_rms_even        sd and var    lower  moment_rms without weights
mean_rms               sd            lower  root mean square of the K weighted channel means
square_rms             var           lower  root mean square of the K weighted mean squares
frechet                var           lower  weighted mean of m^2 + (s - 1)^2, see `frechet`
bn_distance            var           lower  mean over images and layers of the `bn` matrix
class_entropy          frac of log C higher entropy of the predicted classes
weighted_class_entropy frac of log C higher weighted entropy of the predicted classes
soft_class_entropy     frac of log C higher entropy of the weighted mean softmax
runner_up_entropy      frac of log C higher entropy of the second most probable classes
deficit                frac of n     lower  images that classes lack of an equal share, over n
effective_frac         frac of n     higher effective sample size of the weights
duplicate_frac         frac of pool  ?      images dropped as duplicates, exact and near
nearest_similarity     cosine        lower  mean similarity to the nearest selected image
effective_rank         frac of D     higher exp(entropy of the covariance spectrum) / D
log_odds               nats          ?      mean log-odds of the predicted class
margin                 nats          ?      mean difference of the two largest logits
unsure_frac            frac of n     ?      images whose top class has a probability below .5
entropy                nats          ?      mean entropy of the softmax
soft_entropy           nats          ?      mean entropy of the softmax at temperature 4
information            nats          higher entropy of the mean softmax minus the mean entropy
soft_information       nats          higher information of the softmax at temperature 4
target_variance        none          higher total variance of the softmax at temperature 4
====================== ============= ====== ==================================================

Keys that need a BatchNorm are absent if the teacher has none. Even the original training data does
not reach 0, because the running statistics were taken during training, from augmented views:
CIFAR-10 under a ResNet-18 has moment_rms .17 and frechet .015; a random open-world pool has .39 and
.12. nearest_similarity is measured for QUERIES images; it and effective_rank use a seeded sample of
SPREAD_NUMBERS / D images if the selection is larger. benchmarks/selections.py measures which keys
rank selections in the order of their students' accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.embeddings import Block
from indexes.shards.writer import effective_sample_size
from pipeline.pool import Pool
from pipeline.soft_targets import TEMPERATURE, soften
from pipeline.weighting.weights import gather_matrix, stratified_positions

Array = npt.NDArray[Any]
SPREAD_NUMBERS = 1 << 25  # float32 numbers (128 MiB): 65,536 images of 512 features
QUERIES = 512
CHUNK_ROWS = 4096
DIGITS = 5  # significant digits kept: further ones may depend on a library's order of summation


def certify(
    pool: Pool, rows: Array, weight: Array, dropped: Mapping[str, int], seed: int
) -> tuple[dict[str, float], Array | None]:
    """Return the figures of ascending pool rows [n] with weights [n], and the mean moments.

    `dropped` maps each drop reason of the selection to its count. The mean moments are float64
    [2, 2K]: the mean of the selected rows' `moments` without weights and with weights. They are
    None if the teacher has no BatchNorm. The selected rows are scanned once, in chunks of
    CHUNK_ROWS.
    """
    if not len(rows):
        return {}, None
    sums: dict[str, Array] = {}
    start = 0
    for block, local in pool.by_block(rows):
        for part in range(0, len(local), CHUNK_ROWS):
            chunk = local[part : part + CHUNK_ROWS]
            counted = weight[start : start + len(chunk)].astype(np.float64)
            for name, value in _sums(block, chunk, counted, len(pool.classes)).items():
                sums[name] = sums[name] + value if name in sums else value
            start += len(chunk)
    n = len(rows)
    twins = sum(count for reason, count in dropped.items() if "duplicate" in reason)
    figures = {
        **_moment_figures(sums, n),
        **_class_figures(sums, n),
        "effective_frac": effective_sample_size(weight.astype(np.float64)) / n,
        "duplicate_frac": twins / len(pool),
        **_spread_figures(pool, rows, seed),
        **_logit_figures(sums, n),
    }
    moments = None
    if "even" in sums:
        moments = np.stack([sums["even"] / n, sums["weighted"] / sums["weight"]])
    return {key: float(f"{value:.{DIGITS}g}") for key, value in figures.items()}, moments


def frechet(moments: Array) -> float:
    """Return the mean over K channels of the squared 2-Wasserstein distance to the running stats.

    moments [2K]: the K means of (x - rm) / sqrt(rv), then the K means of (x - rm)^2 / rv - 1, for a
    running mean rm and variance rv. Selection and running statistics are compared as Gaussians,
    channel by channel, in units of the running variance: m^2 + (s - 1)^2, where m is the mean of
    the standardized input and s its standard deviation (Frechet distance of diagonal Gaussians).

    Example:
        >>> round(frechet(np.array([0.5, 0.0, -0.25, 0.0])), 4)  # m = .5 and 0, s = .71 and 1
        0.1679
    """
    mean, square = np.split(moments, 2)
    deviation = np.sqrt(np.maximum(square + 1 - np.square(mean), 0))
    return float((np.square(mean) + np.square(deviation - 1)).mean())


def entropy(p: Array) -> float:
    """Return the entropy in nats of counts or probabilities [C], normalized to sum to 1.

    Example:
        >>> round(entropy(np.array([5, 5])), 4)
        0.6931
    """
    p = p[p > 0] / p.sum()
    return float(-(p * np.log(p)).sum())


def _sums(block: Block, local: Array, weight: Array, num_classes: int) -> dict[str, Array]:
    """Return sums over the rows, from which all figures but the spread figures are computed."""
    label, log_odds, logsumexp = (
        column[local] for column in block.columns("label", "log_odds", "logsumexp")
    )
    logits = block.matrix("logits")[local].astype(np.float32)
    stored = block.logit_classes
    columns = np.arange(num_classes) if stored is None else stored[local]
    classes = np.broadcast_to(columns, logits.shape)
    rest = num_classes - logits.shape[1]
    top = np.argsort(-logits, 1, kind="stable")[:, :2]
    best = np.take_along_axis(logits, top, 1)
    second = np.take_along_axis(classes, top, 1)[:, -1]
    sums: dict[str, Any] = {
        "weight": weight.sum(),
        "label": np.bincount(label, minlength=num_classes),
        "weighted_label": np.bincount(label, weight, num_classes),
        "second": np.bincount(second, minlength=num_classes),
        "log_odds": log_odds.sum(dtype=np.float64),
        "margin": (best[:, 0] - best[:, -1]).sum(dtype=np.float64),
        "unsure": (log_odds < 0).sum(),
    }
    for name, temperature in (("", 1.0), ("soft_", TEMPERATURE)):
        p, other = soften(logits, logsumexp, num_classes, temperature)
        spread = p - other[:, None]
        sums[f"{name}entropy"] = -(_plogp(p).sum() + rest * _plogp(other).sum())
        sums[f"{name}p"] = np.bincount(classes.ravel(), spread.ravel(), num_classes) + other.sum()
        sums[f"{name}p_square"] = np.square(p).sum() + rest * np.square(other).sum()
        if not name:
            spread *= weight[:, None]
            mean = np.bincount(classes.ravel(), spread.ravel(), num_classes)
            sums["weighted_p"] = mean + (other * weight).sum()
    if block.has("moments"):
        moments = block.matrix("moments")[local].astype(np.float64)
        sums["even"] = np.einsum("nk->k", moments)
        sums["weighted"] = np.einsum("n,nk->k", weight, moments)
    if block.has("bn"):
        sums["bn"] = block.matrix("bn")[local].mean(1, dtype=np.float64).sum()
    return sums


def _moment_figures(sums: dict[str, Array], n: int) -> dict[str, float]:
    figures = {}
    if "even" in sums:
        even, weighted = sums["even"] / n, sums["weighted"] / sums["weight"]
        mean, square = np.split(weighted, 2)
        figures = {
            "moment_rms": _rms(weighted),
            "moment_rms_even": _rms(even),
            "mean_rms": _rms(mean),
            "square_rms": _rms(square),
            "frechet": frechet(weighted),
        }
    if "bn" in sums:
        figures["bn_distance"] = float(sums["bn"] / n)
    return figures


def _class_figures(sums: dict[str, Array], n: int) -> dict[str, float]:
    counts = sums["label"]
    most = max(float(np.log(len(counts))), 1e-12)
    return {
        "class_entropy": entropy(counts) / most,
        "weighted_class_entropy": entropy(sums["weighted_label"]) / most,
        "soft_class_entropy": entropy(sums["weighted_p"]) / most,
        "runner_up_entropy": entropy(sums["second"]) / most,
        "deficit": float(np.maximum(n / len(counts) - counts, 0).sum() / n),
    }


def _logit_figures(sums: dict[str, Array], n: int) -> dict[str, float]:
    figures = {
        "log_odds": float(sums["log_odds"] / n),
        "margin": float(sums["margin"] / n),
        "unsure_frac": float(sums["unsure"] / n),
    }
    for name in ("", "soft_"):
        mean = float(sums[f"{name}entropy"] / n)
        figures[f"{name}entropy"] = mean
        figures[f"{name}information"] = entropy(sums[f"{name}p"]) - mean
    center = sums["soft_p"] / n
    figures["target_variance"] = float(sums["soft_p_square"] / n - np.square(center).sum())
    return figures


def _spread_figures(pool: Pool, rows: Array, seed: int) -> dict[str, float]:
    """Return how far apart the selected rows lie in the teacher's feature space."""
    width = pool.blocks[0].matrix("features").shape[1]
    chosen = rows[stratified_positions(len(rows), max(SPREAD_NUMBERS // width, 2), seed)]
    features = gather_matrix(pool, chosen, "features")
    n = len(features)
    center, scatter = features.mean(0, dtype=np.float64), np.zeros((width, width))
    for start in range(0, n, CHUNK_ROWS):
        centered = features[start : start + CHUNK_ROWS] - center
        scatter += centered.T @ centered
    spectrum = np.maximum(np.linalg.eigvalsh(scatter), 0)
    figures = {
        "effective_rank": float(np.exp(entropy(spectrum))) / width if spectrum.any() else 0.0
    }
    if n < 2:
        return figures
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    queries = stratified_positions(n, QUERIES, seed + 1)
    queried = features[queries]
    nearest = np.full(len(queries), -1.0, np.float32)
    for start in range(0, n, CHUNK_ROWS):
        similarity = queried @ features[start : start + CHUNK_ROWS].T
        inside = (queries >= start) & (queries < start + similarity.shape[1])
        similarity[np.flatnonzero(inside), queries[inside] - start] = -1
        nearest = np.maximum(nearest, similarity.max(1))
    return {"nearest_similarity": float(nearest.mean()), **figures}


def _plogp(p: Array) -> Array:
    out: Array = p * np.log(np.maximum(p, 1e-300))
    return out


def _rms(values: Array) -> float:
    return float(np.sqrt(np.square(values).mean()))
