"""Importance weights of the selected rows: mean 1, capped, effective sample size reported."""

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
"""Opens a block for reading: local rows [n] -> numbers [n, P]."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large a problem is solved."""

    solve_numbers: int = 1 << 25
    """float32 numbers (128 MiB) that a match is solved on: 32,768 rows of 1,024 moments. Measured
    on 222,208 rows: moment_rms .1167 from 32,768 of them in 28 CPU-s, .1168 from 131,072 in 90."""
    soft_prior_classes: int = 1024
    """Up to so many classes soft_prior solves for a multiplier each."""


LIMITS = Limits()


@dataclass(frozen=True)
class Weights:
    """weight: float32 [n] with mean 1; note: how they came about, for the card."""

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
    """Weights of the ascending pool rows [n], none above `cap`; the excess goes to the others.

    class_prior: every class present weighs the same, an image of class y as 1 / n_y (OURS).
    soft_prior: the most even weights under which the mean of the teacher's softmax at
    temperature 4, which is what a student learns from, gives every class the same (OURS). Above
    `limits.soft_prior_classes` classes class_prior, and the note says so.
    confidence: an image weighs as the teacher's largest probability, sigmoid(log-odds) (OURS).
    moment_match: the most even weights under which the mean of the teacher's last BatchNorm's
    input, and that of its square, come nearest to the running statistics, with an effective
    sample size of at least `floor` of n (OURS; entropy_balancing.py). A teacher without BatchNorm
    has no such statistics: class_prior then, and the note says so.

    Raises ValueError for a cap below 1.

    Example: `weigh(pool, rows, "soft_prior", cap=8.0, floor=0.5, seed=0).weight`
    """
    if not cap >= 1:
        raise ValueError(f"weight_cap={cap}: a cap below 1 leaves no weights of mean 1")
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
    """log 1 / n_y, float64 [n], of labels [n]."""
    score: Scores = -np.log(np.maximum(np.bincount(label, minlength=num_classes), 1))[label]
    return score


def moments(block: Block) -> Callable[[Rows], npt.NDArray[Any]]:
    """Reads the moments of rows of a block, [n, 2K]; over the lost data their mean is zero."""
    return block.matrix("moments").__getitem__


def soft_surplus(num_classes: int) -> Reader:
    """Reads the softened targets of rows less an even share, float32 [n, C]."""

    def reader(block: Block) -> Callable[[Rows], Floats]:
        targets = SoftTargets.of(block)
        return lambda local: (
            targets.rows(local).probabilities(num_classes) - np.float32(1 / num_classes)
        )

    return reader


def tilted_scores(pool: Pool, rows: Rows, reader: Reader, multipliers: Scores) -> Scores:
    """Log-weights float64 [n] of ascending pool rows [n]: their numbers [P] times multipliers [P].

    Multipliers that were solved on a sample serve all rows, which are read block by block.
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
    """`most` of the positions 0..total-1, ascending: one at random in each of as many strata."""
    if total <= most:
        return np.arange(total)
    draw = np.random.default_rng(seed).random(most)
    edges = np.arange(most + 1) * total // most
    return edges[:-1] + (draw * np.diff(edges)).astype(np.int64)


def gather_matrix(pool: Pool, rows: Rows, name: str) -> Floats:
    """Matrix `name` of ascending pool rows [n], float32 [n, width]."""
    width = pool.blocks[0].matrix(name).shape[1]
    return gather(pool, rows, lambda block: block.matrix(name).__getitem__, width)


def gather(pool: Pool, rows: Rows, reader: Reader, width: int) -> Floats:
    """The numbers of ascending pool rows [n], float32 [n, width]."""
    out = np.empty((len(rows), width), np.float32)
    start = 0
    for block, local in pool.by_block(rows):
        read = reader(block)
        for part in chunks(len(local), CHUNK_ROWS):
            out[start : start + len(local[part])] = read(local[part])
            start += len(local[part])
    return out
