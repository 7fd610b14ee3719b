"""Entropy balancing: the most even weights under which the rows' mean meets a target of zero.

n rows z [n, P], ridge r, cap c. Weights of mean 1, none above c, that maximize entropy less the
squared slack over 2 r (METHODS section 6: moment-matched importance weights, OURS). The dual

    min over l, v of  mean(phi(z l - v)) + v + r/2 |l|^2

is convex; phi(u) = exp(u) - 1 up to log c and its tangent from there on. It gives
w = min(c, exp(z l - v)), and the slack that is left: mean(w z) = -r l.
Sums are float64 and in a fixed order of chunks, whatever the number of threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.shards.writer import effective_sample_size
from pipeline.pool import chunks

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]
CHUNK_ROWS = 4096
MAX_STEPS = 60
FULL_STEP_DECREMENT = 1e-9  # below it full steps are taken: the objective is rounded too there
RIDGE_STEP = 2**0.25
LARGEST_RIDGE = 100  # times the rows' mean square: it leaves the weights even
SEARCH_DECREMENT = 1e-4  # at which a ridge is judged


@dataclass(frozen=True, kw_only=True)
class Tilt:
    """multipliers float64 [P], and what it took to find them."""

    multipliers: Floats
    ridge: float
    newton_steps: int


def balance(z: Rows, cap: float, floor: float) -> Tilt:
    """The closest match whose effective sample size is at least `floor` times n.

    The ridge is at least 1 / n of the rows' total variance, the squared error of their mean: a
    direction in which they differ less cannot be told from chance, and is left alone. Where that
    leaves too small a sample the ridge grows in steps of 2^(1/4); bisection finds the first that
    serves. The root mean square over the P columns of mean(w z) is never above that of mean(z).

    Example:
        >>> tilt = balance(z, cap=8.0, floor=0.3)
        >>> weight = capped_weights(linear_scores(z, tilt.multipliers), cap=8.0)
    """
    mean, square = _mean_and_square(z)
    lowest = max((square - float(mean @ mean)) / len(z), 1e-6 * square, 1e-12)
    low, high = -1, math.ceil(math.log(max(LARGEST_RIDGE * square / lowest, 1.0), RIDGE_STEP))
    best, newton_steps = np.zeros(z.shape[1]), 0
    while high - low > 1:
        step = (low + high) // 2
        multipliers, steps = solve(z, cap, lowest * RIDGE_STEP**step, best, SEARCH_DECREMENT)
        newton_steps += steps
        weight = capped_weights(linear_scores(z, multipliers), cap)
        if effective_sample_size(weight) / len(weight) >= floor:
            best, high = multipliers, step
        else:
            low = step
    ridge = lowest * RIDGE_STEP**high
    best, steps = solve(z, cap, ridge, best)
    # Rounded, so that the order in which a library adds up leaves no trace in the weights.
    multipliers = best.astype(np.float32).astype(np.float64)
    return Tilt(multipliers=multipliers, ridge=ridge, newton_steps=newton_steps + steps)


def solve(
    z: Rows, cap: float, ridge: float, start: Floats, tolerance: float = 0.0
) -> tuple[Floats, int]:
    """The multipliers float64 [P] of rows z [n, P] at one ridge, and the Newton steps taken.

    A damped semismooth Newton method: the objective, strongly convex, falls at every step. It
    ends at a decrement (twice what is left to gain, in nats) of `tolerance`, or of rounding alone.
    """
    multipliers, score = start, linear_scores(z, start)
    before = math.inf
    for step in range(MAX_STEPS):
        slope, curvature = _derivatives(z, score, cap)
        slope += ridge * multipliers
        curvature[np.diag_indices_from(curvature)] += ridge
        direction = -np.linalg.solve(curvature, slope)
        decrement = float(-slope @ direction)
        if decrement <= tolerance or (before < FULL_STEP_DECREMENT and decrement > before / 4):
            return multipliers, step
        along, length = linear_scores(z, direction), 1.0
        if decrement > FULL_STEP_DECREMENT:
            value = objective(score, multipliers, cap, ridge)
            while (
                objective(score + length * along, multipliers + length * direction, cap, ridge)
                > value - 1e-4 * length * decrement
                and length > 1e-6
            ):
                length /= 2
        multipliers, score = multipliers + length * direction, score + length * along
        before = decrement
    return multipliers, MAX_STEPS


def objective(score: Floats, multipliers: Floats, cap: float, ridge: float) -> float:
    """The dual, least over v, at scores z l [n]."""
    offset = normalizer(score, cap)
    u = score - offset
    top = math.log(cap)
    phi = np.exp(np.minimum(u, top)) - 1 + cap * np.maximum(u - top, 0)
    return float(phi.mean() + offset + ridge / 2 * multipliers @ multipliers)


def normalizer(score: Floats, cap: float) -> float:
    """v such that min(cap, exp(score - v)) has mean 1, for scores [n] and a cap above 1."""
    over = np.zeros(len(score), bool)
    while True:
        rest = score[~over]
        largest = rest.max()
        total = float(np.exp(rest - largest).sum())
        offset = float(largest) + math.log(total / (len(score) - cap * over.sum()))
        new = ~over & (score - offset > math.log(cap) + 1e-12)
        if not new.any():
            return offset
        over |= new


def capped_weights(score: Floats, cap: float) -> Floats:
    """Weights float64 [n] of mean 1 as exp(score), none above `cap`; the excess goes to all."""
    if cap <= 1:
        return np.ones(len(score))
    u = np.minimum(score - normalizer(score, cap), math.log(cap))
    weight: Floats = np.minimum(np.exp(u), cap)
    return weight


def linear_scores(z: Rows, multipliers: npt.NDArray[np.floating[Any]]) -> Floats:
    """z l, float64 [n]."""
    out = np.empty(len(z))
    for rows in chunks(len(z), CHUNK_ROWS):
        out[rows] = np.einsum("nk,k->n", z[rows].astype(np.float64), multipliers)
    return out


def _derivatives(z: Rows, score: Floats, cap: float) -> tuple[Floats, Floats]:
    """mean(w z) [P] and the curvature [P, P] of the dual without its ridge."""
    weight = capped_weights(score, cap)
    free = np.where(weight < cap * (1 - 1e-12), weight, 0.0)  # a weight at the cap does not move
    width = z.shape[1]
    slope, pull, curvature = np.zeros(width), np.zeros(width), np.zeros((width, width))
    for rows in chunks(len(z), CHUNK_ROWS):
        block = z[rows].astype(np.float64)
        slope += np.einsum("n,nk->k", weight[rows], block)
        pull += np.einsum("n,nk->k", free[rows], block)
        block *= np.sqrt(free[rows])[:, None]
        curvature += block.T @ block
    if free.any():
        curvature -= np.outer(pull, pull) / free.sum()
    return slope / len(z), curvature / len(z)


def _mean_and_square(z: Rows) -> tuple[Floats, float]:
    """The mean row [P], and the mean of the rows' squared lengths."""
    total, square = np.zeros(z.shape[1]), 0.0
    for rows in chunks(len(z), CHUNK_ROWS):
        block = z[rows].astype(np.float64)
        total += np.einsum("nk->k", block)
        square += float(np.einsum("nk,nk->", block, block))
    return total / len(z), square / len(z)
