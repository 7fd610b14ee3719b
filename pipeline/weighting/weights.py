"""Importance weights of the selected rows: mean 1, capped, effective sample size reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from indexes.embeddings import Block
from pipeline.pool import Pool
from pipeline.soft_targets import SoftTargets
from pipeline.weighting import entropy_balancing

Array = npt.NDArray[Any]
Weighing = Literal["none", "class_prior", "soft_prior", "confidence", "moment_match"]
Read = Callable[[Block], Callable[[Array], Array]]
"""Opens a block for reading: local rows [n] -> numbers [n, P]."""
MOST_CLASSES = 1024
"""Up to so many classes soft_prior solves for a multiplier each."""
SOLVE_NUMBERS = 1 << 25
"""float32 numbers (128 MiB) that a match is solved on: 32,768 rows of 1,024 moments. Measured on
222,208 rows: moment_rms .1167 from 32,768 of them in 28 CPU-s, .1168 from 131,072 in 90."""


@dataclass(frozen=True)
class Weighed:
    """weight: float32 [n] with mean 1; note: how they came about, for the card."""

    weight: Array
    note: dict[str, Any]


def weigh(
    pool: Pool, rows: Array, weighing: Weighing, *, cap: float, floor: float, seed: int
) -> Weighed:
    """Weights of the ascending pool rows [n], none above `cap`; the excess goes to the others.

    class_prior: every class present weighs the same, an image of class y as 1 / n_y (OURS).
    soft_prior: the most even weights under which the mean of the teacher's softmax at
    temperature 4, which is what a student learns from, gives every class the same (OURS). Above
    MOST_CLASSES classes class_prior, and the note says so.
    confidence: an image weighs as the teacher's largest probability, sigmoid(log-odds) (OURS).
    moment_match: the most even weights under which the mean of the teacher's last BatchNorm's
    input, and that of its square, come nearest to the running statistics, with an effective
    sample size of at least `floor` of n (OURS; balancing.py). A teacher without BatchNorm has no
    such statistics: class_prior then, and the note says so.
    """
    if not cap >= 1:
        raise ValueError(f"weight_cap={cap}: a cap below 1 leaves no weights of mean 1")
    note: dict[str, Any] = {"weights": weighing}
    if weighing == "moment_match" and not all(block.has("moments") for block in pool.blocks):
        weighing = "class_prior"
        note["note"] = "the teacher has no BatchNorm to match: class_prior weights instead"
    if weighing == "soft_prior" and len(pool.classes) > MOST_CLASSES:
        weighing = "class_prior"
        note["note"] = f"more than {MOST_CLASSES:,} classes: class_prior weights instead"
    if weighing == "none" or not len(rows) or cap == 1:
        return Weighed(np.ones(len(rows), np.float32), note)
    if weighing == "class_prior":
        score = class_prior(pool.column("label")[rows], len(pool.classes))
    elif weighing == "confidence":
        score = -np.logaddexp(0.0, -pool.column("log_odds")[rows].astype(np.float64))
    else:
        read = moments if weighing == "moment_match" else soft_surplus(len(pool.classes))
        score, tilt = matched(pool, rows, read, cap, floor, seed)
        note |= tilt
    return Weighed(entropy_balancing.level(score, cap).astype(np.float32), note)


def class_prior(label: Array, num_classes: int) -> Array:
    """log 1 / n_y, float64 [n], of labels [n]."""
    score: Array = -np.log(np.maximum(np.bincount(label, minlength=num_classes), 1))[label]
    return score


def moments(block: Block) -> Callable[[Array], Array]:
    """Reads the moments of rows of a block, [n, 2K]; over the lost data their mean is zero."""
    return block.matrix("moments").__getitem__


def soft_surplus(num_classes: int) -> Read:
    """Reads the softened answers of rows less an even share, float32 [n, C]."""

    def of(block: Block) -> Callable[[Array], Array]:
        stored = SoftTargets.of(block)
        return lambda local: stored.rows(local).answers(num_classes) - np.float32(1 / num_classes)

    return of


def matched(
    pool: Pool, rows: Array, read: Read, cap: float, floor: float, seed: int
) -> tuple[Array, dict[str, Any]]:
    """Log-weights float64 [n] under which `read` [., P] has mean zero, and the card's note.

    Solved on a seeded sample where n rows of P numbers are more than SOLVE_NUMBERS; its
    multipliers then serve all rows, read block by block.
    """
    width = read(pool.blocks[0])(np.zeros(0, np.int64)).shape[1]
    chosen = rows[spread_out(len(rows), max(SOLVE_NUMBERS // width, 1), seed)]
    tilt = entropy_balancing.balance(gathered(pool, chosen, read, width), cap, floor)
    score = np.concatenate(
        [
            entropy_balancing.scores(numbers(local[part]), tilt.multipliers)
            for block, local in pool.by_block(rows)
            for numbers in [read(block)]
            for part in entropy_balancing.chunks(len(local))
        ]
    )
    note = {
        "ridge": tilt.ridge,
        "newton_steps": tilt.newton_steps,
        "solved_rows": len(chosen),
    }
    return score, note


def spread_out(total: int, most: int, seed: int) -> Array:
    """`most` of the positions 0..total-1, ascending: one at random in each of as many strata."""
    if total <= most:
        return np.arange(total)
    draw = np.random.default_rng(seed).random(most)
    edges = np.arange(most + 1) * total // most
    return edges[:-1] + (draw * np.diff(edges)).astype(np.int64)


def gather_columns(pool: Pool, rows: Array, name: str) -> Array:
    """Matrix `name` of ascending pool rows [n], float32 [n, width]."""
    width = pool.blocks[0].matrix(name).shape[1]
    return gathered(pool, rows, lambda block: block.matrix(name).__getitem__, width)


def gathered(pool: Pool, rows: Array, read: Read, width: int) -> Array:
    """What `read` gives of ascending pool rows [n], float32 [n, width]."""
    out = np.empty((len(rows), width), np.float32)
    start = 0
    for block, local in pool.by_block(rows):
        numbers = read(block)
        for part in entropy_balancing.chunks(len(local)):
            out[start : start + len(local[part])] = numbers(local[part])
            start += len(local[part])
    return out
