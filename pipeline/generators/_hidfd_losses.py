"""The losses of HiDFD (arXiv 2412.13525; SOURCE), each a pure function.

B images, C classes, D_T the teacher's feature width. Real images come first where both are asked
for. Nothing here detaches: what may learn is the caller's to say.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


class LossError(ValueError):
    """Tensors whose shapes do not go together."""


def hinge_discriminator(real_B: Tensor, fake_B: Tensor) -> Tensor:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(G)), a scalar of scores [B] and [B']."""
    _expect(real_B.ndim == 1 and fake_B.ndim == 1, "scores are [B]", real_B, fake_B)
    return F.relu(1 - real_B).mean() + F.relu(1 + fake_B).mean()


def hinge_generator(fake_B: Tensor) -> Tensor:
    """-E D(G), a scalar of scores [B]."""
    _expect(fake_B.ndim == 1, "scores are [B]", fake_B)
    return -fake_B.mean()


def adc_discriminator(
    real_BE: Tensor, real_class_B: Tensor, fake_BE: Tensor, fake_class_B: Tensor
) -> Tensor:
    """CE(D2(x), 2y) + CE(D2(G), 2y + 1), a scalar of logits [B, 2C] and classes [B]."""
    _expect_adc(real_BE, real_class_B)
    _expect_adc(fake_BE, fake_class_B)
    real = F.cross_entropy(real_BE, 2 * real_class_B)
    return real + F.cross_entropy(fake_BE, 2 * fake_class_B + 1)


def adc_generator(fake_BE: Tensor, fake_class_B: Tensor) -> Tensor:
    """CE(D2(G), 2y) - CE(D2(G), 2y + 1), a scalar of logits [B, 2C] and classes [B]."""
    _expect_adc(fake_BE, fake_class_B)
    real = F.cross_entropy(fake_BE, 2 * fake_class_B)
    return real - F.cross_entropy(fake_BE, 2 * fake_class_B + 1)


def distance(first_BD: Tensor, second_BD: Tensor) -> Tensor:
    """Mean Euclidean distance of features [B, D_T], row by row: a scalar."""
    same = first_BD.ndim == 2 and first_BD.shape == second_BD.shape
    _expect(same, "features are [B, D_T] twice", first_BD, second_BD)
    lengths_B: Tensor = torch.linalg.vector_norm(first_BD - second_BD, dim=1)
    return lengths_B.mean()


def transfer(
    teacher_real_BD: Tensor, disc_real_BD: Tensor, teacher_fake_BD: Tensor, disc_fake_BD: Tensor
) -> Tensor:
    """L_trans = ||h_T(r) - h_D(r)|| + ||h_T(f) - h_D(f)||, means over B: a scalar."""
    return distance(teacher_real_BD, disc_real_BD) + distance(teacher_fake_BD, disc_fake_BD)


def blend(
    teacher_real_BD: Tensor, disc_real_BD: Tensor, teacher_fake_BD: Tensor, disc_fake_BD: Tensor
) -> Tensor:
    """L_blend = ||h_T(r) - h_D(f)|| + ||h_T(f) - h_D(r)||, means over B: a scalar."""
    return distance(teacher_real_BD, disc_fake_BD) + distance(teacher_fake_BD, disc_real_BD)


def updated_counts(counts_C: Tensor, seen_C: Tensor) -> Tensor:
    """N_k <- max(1, .5 N_k + .5 n_k), [C] of counts so far and of those since the last time."""
    same = counts_C.ndim == 1 and counts_C.shape == seen_C.shape
    _expect(same, "counts are [C] twice", counts_C, seen_C)
    return (0.5 * counts_C + 0.5 * seen_C).clamp(min=1)


def class_weights(counts_C: Tensor, beta: float) -> Tensor:
    """v [C], v_k ~ 1 / E_k with E_k = (1 - beta^N_k) / (1 - beta) and sum v = C.

    E_k is the effective number of images (Cui et al. 2019): it saturates at 1 / (1 - beta), so
    beta must leave that above the counts, else all v_k are 1 (the release's .99 saturates at 100).
    """
    _expect(counts_C.ndim == 1, "counts are [C]", counts_C)
    if not 0 < beta < 1:
        raise LossError(f"beta={beta}: above 0 and below 1")
    # Not 1 - beta^N, which cancels where N (1 - beta) is small.
    effective = -torch.expm1(counts_C.double() * math.log(beta)) / (1 - beta)
    inverse = 1 / effective
    return (inverse * len(counts_C) / inverse.sum()).to(counts_C.dtype)


def frequency(logits_BC: Tensor, weights_C: Tensor) -> Tensor:
    """L_reg = sum_k v_k pbar_k log pbar_k, pbar the batch mean of softmax(logits [B, C]): a scalar.

    With v = 1 the negative entropy of the batch's mean answer: least where all classes are alike.
    """
    fits = logits_BC.ndim == 2 and weights_C.shape == logits_BC.shape[1:]
    _expect(fits, "logits are [B, C], weights [C]", logits_BC, weights_C)
    mean_C = logits_BC.softmax(1).mean(0)
    return (weights_C * torch.xlogy(mean_C, mean_C.clamp(min=1e-12))).sum()


def _expect_adc(logits_BE: Tensor, class_B: Tensor) -> None:
    fits = logits_BE.ndim == 2 and class_B.shape == logits_BE.shape[:1]
    _expect(fits and logits_BE.shape[1] % 2 == 0, "logits are [B, 2C], classes [B]", logits_BE,
            class_B)  # fmt: skip


def _expect(fine: bool, wanted: str, *given: Tensor) -> None:
    if not fine:
        raise LossError(f"{wanted}; not {', '.join(str(list(tensor.shape)) for tensor in given)}")
