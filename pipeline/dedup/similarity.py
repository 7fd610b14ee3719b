"""The similarity of two thumbs, robust against re-encoding, cropping and mirroring.

Two thumbnails (indexes.images.thumbnails) are aligned by a crop and, if needed, by mirroring. Then
they are compared window by window. Windows that differ count most, because different pictures may
agree in their coarse structure (a sky over a sea) and differ only in details. Every constant is
OURS, measured by benchmarks/dedup.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from indexes.images.decode import Pixels
from indexes.images.thumbnails import planes

BATCH = 1024
SIGNATURE_SIDE = 6
CHROMA_WEIGHT = 2.0
"""Weight of color in a signature, in which color separates small pictures at little cost."""
COARSE, COARSE_ROUNDS, COARSE_WINDOW = 2, 3, 5
"""First alignment: at half size, starting without a shift, both plain and mirrored."""
FINE_ROUNDS, FINE_WINDOW = 3, 7
PROMISING = 0.75
"""Half-size similarity below which a pair is rejected early. One in 200 true pairs lies below."""
NOISE = 50.0
"""Variance, in squared gray levels, below which a window counts as flat."""
SOFT = 0.15
"""Weight of each neighboring pixel in the smoothing that compensates for resampling."""
CLOSE_COLORS = 0.9
"""Least agreement of brightness and of color. Factors of 0.64 to 1.57 in brightness or saturation
pass, and so does a hue rotation of 26 degrees."""
MOST_ZOOM, MOST_SHIFT, LEAST_OVERLAP = 0.4, 0.3, 0.6


def signatures(thumbs: Pixels) -> npt.NDArray[np.float32]:
    """Return unit vectors float32 [n, 108] whose dot product is large if two thumbs may be similar.

    thumbs: uint8 [n, WIDTH]. A vector holds the even part e and the magnitude of the odd part o
    under mirroring. A picture and its mirror image thus have the same vector. The squared distance
    of two pictures is `||e - e'||^2 + || |o| - |o'| ||^2`.
    """
    luma, chroma = (torch.from_numpy(np.array(plane)).float() for plane in planes(thumbs))
    maps = [F.adaptive_avg_pool2d(m, SIGNATURE_SIDE) for m in (luma[:, None], chroma)]
    image = torch.cat([maps[0], CHROMA_WEIGHT * maps[1]], 1)
    image = image - image.mean((2, 3), keepdim=True)
    left, right = image.chunk(2, 3)
    right = right.flip(3)
    folded = torch.cat([(left + right).flatten(1), (left - right).abs().flatten(1)], 1)
    rows: npt.NDArray[np.float32] = F.normalize(folded, dim=1, eps=1e-3).numpy()
    return rows


def image_similarity(
    first: Pixels, second: Pixels, device: str = "cpu", *, batch_size: int = BATCH
) -> npt.NDArray[np.float32]:
    """Return the similarity float32 [n] in [0, 1] of n pairs of thumbs uint8 [n, WIDTH].

    It is 1 for equal pictures, and 0 for pictures that do not align or differ in brightness or
    color.

    Example: `image_similarity(thumbs[[0]], thumbs[[1]])[0] >= 0.955` for near duplicates.
    """
    similarity = [
        _image_similarity(*(_load(rows[at : at + batch_size], device) for rows in (first, second)))
        for at in range(0, len(first), batch_size)
    ]
    return torch.cat(similarity).cpu().numpy() if similarity else np.zeros(0, np.float32)


def _load(thumbs: Pixels, device: str) -> tuple[Tensor, Tensor]:
    """Smoothed luma [n, S, S] and chroma around 0 [n, 2, S / 2, S / 2], float32."""
    luma, chroma = (torch.from_numpy(np.array(p)).to(device).float() for p in planes(thumbs))
    row = torch.tensor([SOFT, 1.0, SOFT], device=device) / (1 + 2 * SOFT)
    padded = F.pad(luma[:, None], (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, (row[:, None] * row)[None, None])[:, 0], chroma - 128


@torch.no_grad()
def _image_similarity(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    similarity = torch.zeros(len(first[0]), device=first[0].device)
    start = torch.zeros(len(similarity), 4, device=similarity.device)
    small_first, small_second = F.avg_pool2d(first[0], COARSE), F.avg_pool2d(second[0], COARSE)
    straight = _align(small_first, small_second, start, COARSE_ROUNDS)
    mirrored = _align(small_first, small_second.flip(2), start, COARSE_ROUNDS)
    mirror = mirrored[0] > straight[0]
    warp = torch.where(mirror[:, None], mirrored[1], straight[1])
    second = _choose(mirror, [plane.flip(plane.ndim - 1) for plane in second], second)
    # The smaller crop is aligned to the larger one: the reverse fails more often.
    swap = warp[:, 0] + warp[:, 2] > 0
    first, second = _choose(swap, second, first), _choose(swap, first, second)
    zoom, shift = warp[:, 0::2], warp[:, 1::2]
    back = torch.stack([1 / (1 + zoom) - 1, -shift / (1 + zoom)], 2).flatten(1)
    warp = torch.where(swap[:, None], back, warp)
    small_first, small_second = F.avg_pool2d(first[0], COARSE), F.avg_pool2d(second[0], COARSE)
    warp = _align(small_first, small_second, warp, 1)[1]
    agreement = _agreement(small_first, small_second, warp, COARSE_WINDOW)
    near = torch.nonzero(agreement >= PROMISING)[:, 0]
    if len(near):
        first, second = (first[0][near], first[1][near]), (second[0][near], second[1][near])
        warp = _align(first[0], second[0], warp[near], FINE_ROUNDS)[1]
        agreement = _agreement(first[0], second[0], warp, FINE_WINDOW)
        similarity[near] = agreement * _close(first, second, warp)
    return similarity


def _choose(
    where: Tensor, these: Sequence[Tensor], those: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return luma and chroma of `these` where `where` [n] is true, and of `those` elsewhere."""
    luma = torch.where(where[:, None, None], these[0], those[0])
    return luma, torch.where(where[:, None, None, None], these[1], those[1])


def _grid(warp: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sampling matrices (down, across) and the overlap of a crop, all [n, S, S].

    warp [n, 4]: horizontal zoom and shift, vertical zoom and shift, for coordinates in [-1, 1].
    """
    centers = (torch.arange(side, device=warp.device) + 0.5) * 2 / side - 1
    pixels = torch.arange(side, device=warp.device)
    matrices, inside = [], []
    for zoom, shift in (warp[:, :2, None].unbind(1), warp[:, 2:, None].unbind(1)):
        position = (1 + zoom) * centers + shift
        inside.append(((1 - position.abs()) * side / 2 + 0.5).clamp(0, 1))
        at = ((position + 1) * side / 2 - 0.5).clamp(0, side - 1)
        matrices.append((1 - (at[:, :, None] - pixels).abs()).clamp_min(0))
    across, down = matrices
    return down, across.transpose(1, 2), inside[1][:, :, None] * inside[0][:, None, :]


def _slope(side: int, device: torch.device) -> Tensor:
    """The matrix [S, S] of central differences per unit of [-1, 1], one-sided at the ends."""
    eye = torch.eye(side, device=device)
    ends = torch.cat([eye[1:], eye[-1:]]), torch.cat([eye[:1], eye[:-1]])
    steps = (ends[0] - ends[1]) * side / 2
    steps[1:-1] /= 2
    return steps


def _align(first: Tensor, second: Tensor, warp: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """Find the crop of `second` [n, S, S] that fits `first` best: (correlation [n], warp [n, 4]).

    Damped Gauss-Newton on zoom, shift, gain and offset (Lucas and Kanade 1981).
    """
    side = first.shape[1]
    slope = _slope(side, first.device)
    centers = (torch.arange(side, device=first.device) + 0.5) * 2 / side - 1
    best, best_warp = torch.full((len(first),), -1.0, device=first.device), warp
    low = torch.tensor([-MOST_ZOOM, -MOST_SHIFT] * 2, device=first.device)
    for turn in range(rounds + 1):
        down, across, overlap = _grid(warp, side)
        total = overlap.sum((1, 2), keepdim=True)

        def centered(image: Tensor, overlap: Tensor = overlap, total: Tensor = total) -> Tensor:
            return image - (image * overlap).sum((1, 2), keepdim=True) / total

        moved = centered(down @ second @ across)
        fixed = centered(first)
        covariance, first_var, second_var = (
            (x * y * overlap).sum((1, 2))
            for x, y in ((fixed, moved), (fixed, fixed), (moved, moved))
        )
        fit = covariance / (first_var * second_var).sqrt().clamp_min(1e-3)
        better = fit > best
        best = torch.where(better, fit, best)
        best_warp = torch.where(better[:, None], warp, best_warp)
        if turn == rounds:
            break
        gain = (covariance / second_var.clamp_min(1e-3)).clamp(0.3, 3)[:, None, None]
        right = gain * (moved @ slope.T) / (1 + warp[:, 0, None, None])
        below = gain * (slope @ moved) / (1 + warp[:, 2, None, None])
        moves = [right * centers, right, below * centers[:, None], below, moved]
        jacobian = torch.stack([centered(move) for move in moves], 1).flatten(2)
        weighted = jacobian * overlap.flatten(1)[:, None]
        square = weighted @ jacobian.transpose(1, 2)
        damping = square.diagonal(dim1=1, dim2=2)
        damping = 1e-3 * (damping + damping.mean(1, keepdim=True) + 1)
        step = torch.linalg.solve(
            square + torch.diag_embed(damping),
            (weighted @ (fixed - gain * moved).flatten(1)[:, :, None]),
        )
        warp = (warp + step[:, :4, 0].clamp(-0.15, 0.15)).clamp(low, -low)
    return best, best_warp


def _agreement(first: Tensor, second: Tensor, warp: Tensor, window: int) -> Tensor:
    """Return 1 - sqrt(weighted mean of (1 - s)^2) [n], s being the correlation per window (SSIM).

    Windows with more structure weigh more. Windows that are flat in both pictures agree.
    """
    down, across, overlap = _grid(warp, first.shape[1])
    moved = down @ second @ across
    # Means over the overlap alone: a crop has no pixels beyond its edge.
    stack = torch.stack(
        [first, moved, first * first, moved * moved, first * moved, torch.ones_like(first)], 1
    )
    stack = F.avg_pool2d(stack * overlap[:, None], window, 1, window // 2)
    means = stack[:, :5] / stack[:, 5:].clamp_min(1e-6)
    a, b, aa, bb, ab = means.unbind(1)
    first_var, second_var = (aa - a * a).clamp_min(0), (bb - b * b).clamp_min(0)
    same = (ab - a * b + NOISE) / ((first_var * second_var).sqrt() + NOISE)
    weight = overlap * (first_var + second_var + NOISE).sqrt()
    error = ((1 - same) ** 2 * weight).sum((1, 2)) / weight.sum((1, 2))
    enough = overlap.mean((1, 2)) >= LEAST_OVERLAP
    return (1 - error.sqrt()).clamp_min(0) * enough


def _close(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], warp: Tensor) -> Tensor:
    """Whether brightness and colors agree, bool [n]: `2 <a, b> / (|a|^2 + |b|^2)` as in SSIM."""
    close = torch.ones(len(warp), dtype=torch.bool, device=warp.device)
    pairs = (first[0][:, None], second[0][:, None]), (first[1], second[1])
    for a, b in pairs:
        down, across, overlap = _grid(warp, a.shape[-1])
        b = down[:, None] @ b @ across[:, None]
        weight = overlap[:, None].expand_as(a)
        few = weight.sum((1, 2, 3)) * 64
        same = (2 * a * b * weight).sum((1, 2, 3)) + few
        close &= same >= CLOSE_COLORS * (((a * a + b * b) * weight).sum((1, 2, 3)) + few)
    return close
