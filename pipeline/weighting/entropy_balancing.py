"""Entropy balancing: the most even weights under which the mean of the rows is close to zero.

For N rows z [N, P], a ridge r and a cap c, the weights have mean 1 and are at most c. They maximize
entropy minus the squared slack over 2 r. SOURCE of the idea: Hainmueller, "Entropy Balancing for
Causal Effects", Political Analysis 2012; ridge, cap and solver are OURS. The dual is convex::

    min over l, v of  mean(phi(z l - v)) + v + r/2 |l|^2

Here phi(u) = exp(u) - 1 for u up to log c, and its tangent beyond. The solution gives the weights
w = min(c, exp(z l - v)) and the remaining slack mean(w z) = -r l. Sums are float64, in a fixed
order of chunks, whatever the number of threads.
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
FULL_STEP_DECREMENT = 1e-9  # below it, full steps are taken, because the objective is rounded
RIDGE_STEP = 2**0.25
LARGEST_RIDGE = 100  # in units of the rows' mean square; it leaves the weights even
SEARCH_DECREMENT = 1e-4  # the accuracy with which the search for a ridge solves the dual


@dataclass(frozen=True, kw_only=True)
class Tilt:
    """The multipliers float64 [P], their ridge, and the Newton steps that were needed."""

    multipliers: Floats
    ridge: float
    newton_steps: int


def balance(z: Rows, cap: float, floor: float) -> Tilt:
    """Find the closest match whose effective sample size is at least `floor` times N.

    z: rows float32 [N, P]. The ridge is at least 1 / N of the rows' total variance, which is the
    squared error of their mean; differences below it are chance. If the effective sample size is
    too small, the ridge grows in steps of 2^(1/4), and bisection finds the first that suffices. The
    root mean square over the P columns of mean(w z) is never above that of mean(z) (OURS).

    Example:
        >>> z = np.array([[1.0], [1.0], [1.0], [-1.0]], np.float32)
        >>> tilt = balance(z, cap=8.0, floor=0.3)
        >>> capped_weights(linear_scores(z, tilt.multipliers), cap=8.0).round(1).tolist()
        [0.7, 0.7, 0.7, 1.8]
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
    # Rounded, so that the weights do not depend on a library's order of summation.
    multipliers = best.astype(np.float32).astype(np.float64)
    return Tilt(multipliers=multipliers, ridge=ridge, newton_steps=newton_steps + steps)


def solve(
    z: Rows, cap: float, ridge: float, start: Floats, tolerance: float = 0.0
) -> tuple[Floats, int]:
    """Return the multipliers float64 [P] of rows z [N, P] at one ridge, and the Newton steps.

    The method is a damped semismooth Newton method. The strongly convex objective decreases at
    every step. It ends at a decrement (twice the remaining gain, in nats) of `tolerance`, or when
    only rounding errors are left (OURS).
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
    """Return the dual objective, minimized over v, at scores z l [N] and multipliers [P] (OURS)."""
    offset = normalizer(score, cap)
    u = score - offset
    top = math.log(cap)
    phi = np.exp(np.minimum(u, top)) - 1 + cap * np.maximum(u - top, 0)
    return float(phi.mean() + offset + ridge / 2 * multipliers @ multipliers)


def normalizer(score: Floats, cap: float) -> float:
    """Return v such that min(cap, exp(score - v)) has mean 1, for scores [N] and cap > 1 (OURS).

    Example:
        >>> normalizer(np.zeros(3), cap=2.0)
        0.0
    """
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
    """Return weights float64 [N] of mean 1, proportional to exp(score [N]) up to the cap (OURS).

    The excess over the cap is spread over the other images.

    Example:
        >>> capped_weights(np.log(np.array([1.0, 1.0, 8.0])), cap=2.0).tolist()
        [0.5, 0.5, 2.0]
    """
    if cap <= 1:
        return np.ones(len(score))
    u = np.minimum(score - normalizer(score, cap), math.log(cap))
    weight: Floats = np.minimum(np.exp(u), cap)
    return weight


def linear_scores(z: Rows, multipliers: npt.NDArray[np.floating[Any]]) -> Floats:
    """Return z l, float64 [N], of rows z [N, P] and multipliers l [P] (OURS)."""
    out = np.empty(len(z))
    for rows in chunks(len(z), CHUNK_ROWS):
        out[rows] = np.einsum("nk,k->n", z[rows].astype(np.float64), multipliers)
    return out


def _derivatives(z: Rows, score: Floats, cap: float) -> tuple[Floats, Floats]:
    """Return mean(w z) [P] and the curvature [P, P] of the dual without its ridge."""
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
    """Return the mean row [P] and the mean of the rows' squared lengths."""
    total, square = np.zeros(z.shape[1]), 0.0
    for rows in chunks(len(z), CHUNK_ROWS):
        block = z[rows].astype(np.float64)
        total += np.einsum("nk->k", block)
        square += float(np.einsum("nk,nk->", block, block))
    return total / len(z), square / len(z)
