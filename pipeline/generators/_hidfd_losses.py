"""The losses of HiDFD (arXiv 2412.13525; SOURCE), each a pure function.

B images, C classes, D_T the width of the teacher's features. Arguments for real images come before
those for synthetic images. No function detaches its arguments: the caller decides what is trained.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


class LossError(ValueError):
    """An argument of a loss with a wrong shape or value."""


def hinge_discriminator(real_B: Tensor, fake_B: Tensor) -> Tensor:
    """Return E max(0, 1 - D(x)) + E max(0, 1 + D(G)), a scalar, of scores [B] (SOURCE).

    Example:
        >>> float(hinge_discriminator(torch.tensor([2.0]), torch.tensor([-0.5])))
        0.5
    """
    _expect(real_B.ndim == 1 and fake_B.ndim == 1, "scores are [B]", real_B, fake_B)
    return F.relu(1 - real_B).mean() + F.relu(1 + fake_B).mean()


def hinge_generator(fake_B: Tensor) -> Tensor:
    """Return -E D(G), a scalar, of scores [B] (SOURCE).

    Example:
        >>> float(hinge_generator(torch.tensor([1.0, 3.0])))
        -2.0
    """
    _expect(fake_B.ndim == 1, "scores are [B]", fake_B)
    return -fake_B.mean()


def adc_discriminator(
    real_BE: Tensor, real_class_B: Tensor, fake_BE: Tensor, fake_class_B: Tensor
) -> Tensor:
    """Return CE(D2(x), 2y) + CE(D2(G), 2y + 1), a scalar, of logits [B, 2C], classes [B] (SOURCE).

    Example:
        >>> logits, classes = torch.zeros(3, 4), torch.tensor([0, 1, 1])
        >>> round(float(adc_discriminator(logits, classes, logits, classes)), 4)  # 2 log 4
        2.7726
    """
    _expect_adc(real_BE, real_class_B)
    _expect_adc(fake_BE, fake_class_B)
    real = F.cross_entropy(real_BE, 2 * real_class_B)
    return real + F.cross_entropy(fake_BE, 2 * fake_class_B + 1)


def adc_generator(fake_BE: Tensor, fake_class_B: Tensor) -> Tensor:
    """Return CE(D2(G), 2y) - CE(D2(G), 2y + 1), a scalar, of logits [B, 2C], classes [B] (SOURCE).

    Example:
        >>> float(adc_generator(torch.tensor([[0.0, 1.5]]), torch.tensor([0])))
        1.5
    """
    _expect_adc(fake_BE, fake_class_B)
    real = F.cross_entropy(fake_BE, 2 * fake_class_B)
    return real - F.cross_entropy(fake_BE, 2 * fake_class_B + 1)


def distance(first_BD: Tensor, second_BD: Tensor) -> Tensor:
    """Return the mean Euclidean distance of the rows of features [B, D_T], a scalar (SOURCE).

    Example:
        >>> float(distance(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)))
        5.0
    """
    same = first_BD.ndim == 2 and first_BD.shape == second_BD.shape
    _expect(same, "features are [B, D_T] twice", first_BD, second_BD)
    lengths_B: Tensor = torch.linalg.vector_norm(first_BD - second_BD, dim=1)
    return lengths_B.mean()


def transfer(
    teacher_real_BD: Tensor, disc_real_BD: Tensor, teacher_fake_BD: Tensor, disc_fake_BD: Tensor
) -> Tensor:
    """Return `L_trans = ||h_T(r) - h_D(r)|| + ||h_T(f) - h_D(f)||`, a scalar (SOURCE).

    Features [B, D_T] of the teacher h_T and of the discriminator h_D for real images r and
    synthetic images f; distances are means over B.

    Example:
        >>> zero, one = torch.zeros(2, 1), torch.ones(2, 1)
        >>> float(transfer(zero, zero, one, zero))
        1.0
    """
    return distance(teacher_real_BD, disc_real_BD) + distance(teacher_fake_BD, disc_fake_BD)


def blend(
    teacher_real_BD: Tensor, disc_real_BD: Tensor, teacher_fake_BD: Tensor, disc_fake_BD: Tensor
) -> Tensor:
    """Return `L_blend = ||h_T(r) - h_D(f)|| + ||h_T(f) - h_D(r)||`, a scalar (SOURCE).

    Features [B, D_T] of the teacher h_T and of the discriminator h_D for real images r and
    synthetic images f; distances are means over B.

    Example:
        >>> zero, one = torch.zeros(2, 1), torch.ones(2, 1)
        >>> float(blend(zero, one, zero, one))
        2.0
    """
    return distance(teacher_real_BD, disc_fake_BD) + distance(teacher_fake_BD, disc_real_BD)


def updated_counts(counts_C: Tensor, seen_C: Tensor) -> Tensor:
    """Return max(1, .5 N_k + .5 n_k), [C], of counts N [C] and new counts n [C] (SOURCE).

    n_k counts the images of class k since the last update.

    Example:
        >>> updated_counts(torch.tensor([8.0, 1.0]), torch.tensor([2.0, 0.0])).tolist()
        [5.0, 1.0]
    """
    same = counts_C.ndim == 1 and counts_C.shape == seen_C.shape
    _expect(same, "counts are [C] twice", counts_C, seen_C)
    return (0.5 * counts_C + 0.5 * seen_C).clamp(min=1)


def class_weights(counts_C: Tensor, beta: float) -> Tensor:
    """Return weights v [C] of counts N [C]: v_k ~ 1 / E_k with sum v = C (SOURCE).

    E_k = (1 - beta^N_k) / (1 - beta) is the effective number of images (Cui et al. 2019). It
    saturates at 1 / (1 - beta). That limit must exceed the counts, or all v_k are 1; the release's
    beta of .99 saturates at 100. Raises LossError unless 0 < beta < 1.

    Example:
        >>> class_weights(torch.tensor([10.0, 30.0]), beta=0.9999).round(decimals=2).tolist()
        [1.5, 0.5]
    """
    _expect(counts_C.ndim == 1, "counts are [C]", counts_C)
    if not 0 < beta < 1:
        raise LossError(f"beta={beta}: must be above 0 and below 1")
    # Not 1 - beta^N, which loses precision where N (1 - beta) is small.
    effective = -torch.expm1(counts_C.double() * math.log(beta)) / (1 - beta)
    inverse = 1 / effective
    return (inverse * len(counts_C) / inverse.sum()).to(counts_C.dtype)


def frequency(logits_BC: Tensor, weights_C: Tensor) -> Tensor:
    """Return L_reg = sum over k of v_k pbar_k log pbar_k, a scalar (SOURCE).

    pbar [C] is the mean over the batch of softmax(logits [B, C]), and v [C] are the weights. With
    v = 1, it is the negative entropy of pbar, which is least if all classes are equally frequent.

    Example:
        >>> round(float(frequency(torch.zeros(3, 2), torch.ones(2))), 4)  # -log 2
        -0.6931
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
