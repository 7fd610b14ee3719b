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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
CHUNK_ROWS = 4096
MOST_STEPS = 60
LOCAL = 1e-9  # a decrement below which full steps are taken: the objective is rounded too there
RIDGE_STEP = 2**0.25
EVEN = 100  # times the rows' mean square: a ridge that leaves the weights even
SEARCHING = 1e-4  # the decrement at which a ridge is judged


@dataclass(frozen=True, kw_only=True)
class Tilt:
    """multipliers float64 [P], and what it took to find them."""

    multipliers: Array
    ridge: float
    newton_steps: int


def balance(z: Array, cap: float, floor: float) -> Tilt:
    """The closest match whose effective sample size is at least `floor` times n.

    The ridge is at least 1 / n of the rows' total variance, the squared error of their mean: a
    direction in which they differ less cannot be told from chance, and is left alone. Where that
    leaves too small a sample the ridge grows in steps of 2^(1/4); bisection finds the first that
    serves. The root mean square over the P columns of mean(w z) is never above that of mean(z).
    """
    mean, square = _mean_and_square(z)
    lowest = max((square - float(mean @ mean)) / len(z), 1e-6 * square, 1e-12)
    low, high = -1, math.ceil(math.log(max(EVEN * square / lowest, 1.0), RIDGE_STEP))
    best, newton_steps = np.zeros(z.shape[1]), 0
    while high - low > 1:
        step = (low + high) // 2
        found, taken = solve(z, cap, lowest * RIDGE_STEP**step, best, SEARCHING)
        newton_steps += taken
        if effective_frac(level(scores(z, found), cap)) >= floor:
            best, high = found, step
        else:
            low = step
    ridge = lowest * RIDGE_STEP**high
    best, taken = solve(z, cap, ridge, best)
    # Rounded, so that the order in which a library adds up leaves no trace in the weights.
    multipliers = best.astype(np.float32).astype(np.float64)
    return Tilt(multipliers=multipliers, ridge=ridge, newton_steps=newton_steps + taken)


def solve(
    z: Array, cap: float, ridge: float, start: Array, enough: float = 0.0
) -> tuple[Array, int]:
    """The multipliers float64 [P] of rows z [n, P] at one ridge, and the Newton steps taken.

    A damped semismooth Newton method: the objective, strongly convex, falls at every step. It
    ends at a decrement (twice what is left to gain, in nats) of `enough`, or of rounding alone.
    """
    found, score = start, scores(z, start)
    before = math.inf
    for step in range(MOST_STEPS):
        slope, curvature = _derivatives(z, score, cap)
        slope += ridge * found
        curvature[np.diag_indices_from(curvature)] += ridge
        way = -np.linalg.solve(curvature, slope)
        decrement = float(-slope @ way)
        if decrement <= enough or (before < LOCAL and decrement > before / 4):
            return found, step
        along, length = scores(z, way), 1.0
        if decrement > LOCAL:
            here = objective(score, found, cap, ridge)
            while (
                objective(score + length * along, found + length * way, cap, ridge)
                > here - 1e-4 * length * decrement
                and length > 1e-6
            ):
                length /= 2
        found, score = found + length * way, score + length * along
        before = decrement
    return found, MOST_STEPS


def objective(score: Array, multipliers: Array, cap: float, ridge: float) -> float:
    """The dual, least over v, at scores z l [n]."""
    offset = normalizer(score, cap)
    u = score - offset
    top = math.log(cap)
    phi = np.exp(np.minimum(u, top)) - 1 + cap * np.maximum(u - top, 0)
    return float(phi.mean() + offset + ridge / 2 * multipliers @ multipliers)


def normalizer(score: Array, cap: float) -> float:
    """v such that min(cap, exp(score - v)) has mean 1, for scores [n] and a cap above 1."""
    over = np.zeros(len(score), bool)
    while True:
        rest = score[~over]
        most = rest.max()
        total = float(np.exp(rest - most).sum())
        offset = float(most) + math.log(total / (len(score) - cap * over.sum()))
        new = ~over & (score - offset > math.log(cap) + 1e-12)
        if not new.any():
            return offset
        over |= new


def level(score: Array, cap: float) -> Array:
    """Weights float64 [n] of mean 1 as exp(score), none above `cap`; the excess goes to all."""
    if cap <= 1:
        return np.ones(len(score))
    u = np.minimum(score - normalizer(score, cap), math.log(cap))
    weight: Array = np.minimum(np.exp(u), cap)
    return weight


def effective_frac(weight: Array) -> float:
    """Effective sample size of weights [n] over n: (sum w)^2 / (n sum w^2), 0-1."""
    return float(weight.sum() ** 2 / (len(weight) * np.square(weight).sum()))


def scores(z: Array, multipliers: Array) -> Array:
    """z l, float64 [n]."""
    out = np.empty(len(z))
    for rows in chunks(len(z)):
        out[rows] = np.einsum("nk,k->n", z[rows].astype(np.float64), multipliers)
    return out


def chunks(total: int) -> Iterator[slice]:
    """Slices of CHUNK_ROWS rows that cover `total` rows in order."""
    for start in range(0, total, CHUNK_ROWS):
        yield slice(start, min(start + CHUNK_ROWS, total))


def _derivatives(z: Array, score: Array, cap: float) -> tuple[Array, Array]:
    """mean(w z) [P] and the curvature [P, P] of the dual without its ridge."""
    weight = level(score, cap)
    free = np.where(weight < cap * (1 - 1e-12), weight, 0.0)  # a weight at the cap does not move
    width = z.shape[1]
    slope, pull, curvature = np.zeros(width), np.zeros(width), np.zeros((width, width))
    for rows in chunks(len(z)):
        block = z[rows].astype(np.float64)
        slope += np.einsum("n,nk->k", weight[rows], block)
        pull += np.einsum("n,nk->k", free[rows], block)
        block *= np.sqrt(free[rows])[:, None]
        curvature += block.T @ block
    if free.any():
        curvature -= np.outer(pull, pull) / free.sum()
    return slope / len(z), curvature / len(z)


def _mean_and_square(z: Array) -> tuple[Array, float]:
    """The mean row [P], and the mean of the rows' squared lengths."""
    total, square = np.zeros(z.shape[1]), 0.0
    for rows in chunks(len(z)):
        block = z[rows].astype(np.float64)
        total += np.einsum("nk->k", block)
        square += float(np.einsum("nk,nk->", block, block))
    return total / len(z), square / len(z)
