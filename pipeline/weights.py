"""Importance weights of the selected rows: mean 1, capped, effective sample size reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline import balancing
from pipeline.pool import Pool
from pipeline.shard import by_block

Array = npt.NDArray[Any]
Weighing = Literal["none", "class_prior", "confidence", "moment_match"]
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
    if weighing == "none" or not len(rows) or cap == 1:
        return Weighed(np.ones(len(rows), np.float32), note)
    if weighing == "class_prior":
        score = class_prior(pool.column("label")[rows], len(pool.classes))
    elif weighing == "confidence":
        score = -np.logaddexp(0.0, -pool.column("log_odds")[rows].astype(np.float64))
    else:
        score, tilt = moment_match(pool, rows, cap, floor, seed)
        note |= tilt
    return Weighed(balancing.level(score, cap).astype(np.float32), note)


def class_prior(label: Array, num_classes: int) -> Array:
    """log 1 / n_y, float64 [n], of labels [n]."""
    score: Array = -np.log(np.maximum(np.bincount(label, minlength=num_classes), 1))[label]
    return score


def moment_match(
    pool: Pool, rows: Array, cap: float, floor: float, seed: int
) -> tuple[Array, dict[str, Any]]:
    """Log-weights float64 [n] that meet the fingerprint, and the card's note of the solution.

    Solved on a seeded sample where n rows of P moments are more than SOLVE_NUMBERS; its
    multipliers then serve all rows, read block by block.
    """
    width = pool.blocks[0].matrix("moments").shape[1]
    chosen = rows[spread_out(len(rows), max(SOLVE_NUMBERS // width, 1), seed)]
    z = gather(pool, chosen, "moments")
    tilt = balancing.balance(z, cap, floor)
    del z
    score = np.concatenate(
        [
            balancing.scores(block.matrix("moments")[local], tilt.multipliers)
            for block, local in by_block(pool, rows)
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


def gather(pool: Pool, rows: Array, name: str) -> Array:
    """Matrix `name` of ascending pool rows [n], float32 [n, width]."""
    out = np.empty((len(rows), pool.blocks[0].matrix(name).shape[1]), np.float32)
    start = 0
    for block, local in by_block(pool, rows):
        out[start : start + len(local)] = block.matrix(name)[local]
        start += len(local)
    return out
