"""Importance weights of the selected rows, with mean 1 and a cap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from indexes.embeddings import Block
from pipeline.pool import Pool, chunks
from pipeline.soft_targets import SoftTargets
from pipeline.weighting import entropy_balancing
from pipeline.weighting.entropy_balancing import CHUNK_ROWS, capped_weights, linear_scores

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]
Weighing = Literal["none", "class_prior", "soft_prior", "confidence", "moment_match"]
Reader = Callable[[Block], Callable[[Rows], npt.NDArray[Any]]]
"""Opens a block for reading: maps local rows [n] to numbers [n, P]."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the size of the problems that are solved."""

    solve_numbers: int = 1 << 25
    """float32 numbers (128 MiB) on which a match is solved: 32,768 rows of 1,024 moments. Measured
    on 222,208 rows, 32,768 rows give moment_rms .1167 in 28 CPU-seconds, and 131,072 rows .1168 in
    90."""
    soft_prior_classes: int = 1024
    """The most classes for which soft_prior solves for one multiplier per class."""


LIMITS = Limits()


@dataclass(frozen=True)
class Weights:
    """`weight` is float32 [n] with mean 1; `note` says how it was computed, for the card."""

    weight: Floats
    note: dict[str, Any]


def weigh(
    pool: Pool,
    rows: Rows,
    weighing: Weighing,
    *,
    cap: float,
    floor: float,
    seed: int,
    limits: Limits = LIMITS,
) -> Weights:
    """Return weights of ascending pool rows [N], at most `cap`; the excess is spread over others.

    - class_prior: every class that occurs has the same total weight; an image of class y weighs
      1 / n_y (OURS).
    - soft_prior: the most even weights under which the mean of the teacher's softmax at temperature
      4, from which students learn, is the same for every class (OURS). With more than
      `limits.soft_prior_classes` classes, class_prior is used instead, and the note says so.
    - confidence: an image weighs its largest probability, sigmoid(log-odds) (OURS).
    - moment_match: the most even weights under which the mean of the input of the teacher's last
      BatchNorm, and the mean of its square, are closest to the running statistics. The effective
      sample size is at least `floor` times N (OURS; entropy_balancing.py). For a teacher without
      BatchNorm, class_prior is used instead, and the note says so.

    `seed` draws the rows on which a match is solved. Raises ValueError for a cap below 1.

    Example: `weigh(pool, rows, "soft_prior", cap=8.0, floor=0.5, seed=0).weight`
    """
    if not cap >= 1:
        raise ValueError(f"weight_cap={cap}: must be at least 1, because weights have mean 1")
    note: dict[str, Any] = {"weights": weighing}
    if weighing == "moment_match" and not all(block.has("moments") for block in pool.blocks):
        weighing = "class_prior"
        note["note"] = "the teacher has no BatchNorm to match: class_prior weights instead"
    if weighing == "soft_prior" and len(pool.classes) > limits.soft_prior_classes:
        weighing = "class_prior"
        most = f"{limits.soft_prior_classes:,}"
        note["note"] = f"more than {most} classes: class_prior weights instead"
    if weighing == "none" or not len(rows) or cap == 1:
        return Weights(np.ones(len(rows), np.float32), note)
    if weighing == "class_prior":
        score = class_prior(pool.column("label")[rows], len(pool.classes))
    elif weighing == "confidence":
        score = -np.logaddexp(0.0, -pool.column("log_odds")[rows].astype(np.float64))
    else:
        reader = moments if weighing == "moment_match" else soft_surplus(len(pool.classes))
        width = reader(pool.blocks[0])(np.zeros(0, np.int64)).shape[1]
        solved = rows[stratified_positions(len(rows), max(limits.solve_numbers // width, 1), seed)]
        tilt = entropy_balancing.balance(gather(pool, solved, reader, width), cap, floor)
        score = tilted_scores(pool, rows, reader, tilt.multipliers)
        note |= {
            "ridge": tilt.ridge,
            "newton_steps": tilt.newton_steps,
            "solved_rows": len(solved),
        }
    return Weights(capped_weights(score, cap).astype(np.float32), note)


def class_prior(label: npt.NDArray[np.int32], num_classes: int) -> Scores:
    """Return log-weights -log n_y, float64 [N], of predicted classes y [N] (OURS).

    Example:
        >>> np.exp(class_prior(np.array([0, 0, 1]), num_classes=2)).round(3).tolist()
        [0.5, 0.5, 1.0]
    """
    score: Scores = -np.log(np.maximum(np.bincount(label, minlength=num_classes), 1))[label]
    return score


def moments(block: Block) -> Callable[[Rows], npt.NDArray[Any]]:
    """Return a reader of a block's moments [N, 2K], whose mean over the lost data is 0 (OURS)."""
    return block.matrix("moments").__getitem__


def soft_surplus(num_classes: int) -> Reader:
    """Return a reader of softened targets minus an even share, float32 [N, C] (OURS)."""

    def reader(block: Block) -> Callable[[Rows], Floats]:
        targets = SoftTargets.of(block)
        return lambda local: (
            targets.rows(local).probabilities(num_classes) - np.float32(1 / num_classes)
        )

    return reader


def tilted_scores(pool: Pool, rows: Rows, reader: Reader, multipliers: Scores) -> Scores:
    """Return log-weights float64 [N] of ascending pool rows [N]: numbers [N, P] times multipliers.

    Multipliers [P] that were solved on a sample apply to all rows. The rows are read block by block
    (OURS).
    """
    return np.concatenate(
        [
            linear_scores(read(local[part]), multipliers)
            for block, local in pool.by_block(rows)
            for read in [reader(block)]
            for part in chunks(len(local), CHUNK_ROWS)
        ]
    )


def stratified_positions(total: int, most: int, seed: int) -> Rows:
    """Return `most` ascending positions [M] below `total`, one drawn at random from each stratum.

    If `total` is at most `most`, all positions are returned (OURS).

    Example:
        >>> stratified_positions(total=3, most=5, seed=0).tolist()
        [0, 1, 2]
    """
    if total <= most:
        return np.arange(total)
    draw = np.random.default_rng(seed).random(most)
    edges = np.arange(most + 1) * total // most
    return edges[:-1] + (draw * np.diff(edges)).astype(np.int64)


def gather_matrix(pool: Pool, rows: Rows, name: str) -> Floats:
    """Return the matrix `name` of ascending pool rows [N], float32 [N, width] (OURS)."""
    width = pool.blocks[0].matrix(name).shape[1]
    return gather(pool, rows, lambda block: block.matrix(name).__getitem__, width)


def gather(pool: Pool, rows: Rows, reader: Reader, width: int) -> Floats:
    """Return what `reader` reads of ascending pool rows [N], float32 [N, width] (OURS)."""
    out = np.empty((len(rows), width), np.float32)
    start = 0
    for block, local in pool.by_block(rows):
        read = reader(block)
        for part in chunks(len(local), CHUNK_ROWS):
            out[start : start + len(local[part])] = read(local[part])
            start += len(local[part])
    return out
