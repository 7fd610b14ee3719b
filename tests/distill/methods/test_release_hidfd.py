"""HiDFD's student against the formulas of its release, typed again: projector, pooling, loss."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from indexes.models.teacher import Teacher
from indexes.plugins import find, preset
from indexes.shards.reader import Shards
from tests.support.methods import make, make_batch

World = tuple[Shards, Teacher]
pytestmark = pytest.mark.usefixtures("one_thread")


def release_projection(weights: dict[str, Tensor], map_BDHW: Tensor) -> Tensor:
    """Convolve 1x1, 3x3 and 1x1 without a bias; normalize by the batch and clip at 0 after each."""
    for conv, norm, padding in (("0", "1", 0), ("3", "4", 1), ("6", "7", 0)):
        x = F.conv2d(map_BDHW, weights[f"{conv}.weight"], padding=padding)
        mean = x.mean((0, 2, 3), keepdim=True)
        variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
        gain, shift = (weights[f"{norm}.{name}"][:, None, None] for name in ("weight", "bias"))
        map_BDHW = ((x - mean) / (variance + 1e-5).sqrt() * gain + shift).clamp_min(0)
    return map_BDHW


def released(world: World, student: str) -> Any:
    """Return the method with the preset `faithful`, in float64."""
    config = preset(find("distill.methods", "hidfd"), "faithful").config
    one = make(world, "hidfd", student, **asdict(config)).double()
    # Gains and shifts that differ, so that none of them is without effect.
    for name, values in one.module.projector.named_parameters():
        if values.ndim == 1:
            generator = torch.Generator().manual_seed(len(name))
            with torch.no_grad():
                values.add_(0.2 * torch.rand(values.shape, generator=generator))
    return one


@pytest.mark.parametrize("student", ["resnet8", "mobilenetv2"])
def test_the_student_minimizes_the_mean_square_to_the_teachers_map(
    world: World, student: str
) -> None:
    one = released(world, student)
    batch = make_batch(world, one)
    assert batch.features is not None
    batch = replace(batch, **{
        name: getattr(batch, name).double() for name in ("pixels", "weights", "features")
    })  # fmt: skip
    seen: list[Tensor] = []
    projector = one.module.projector
    projector.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    projector.register_forward_hook(lambda module, arguments, out: seen.append(out))
    terms = one.losses(batch, 0.0)
    assert terms.keys() == {"align"}
    given, projected = seen
    weights = {name: value.detach() for name, value in projector.named_parameters()}
    typed = release_projection(weights, given.detach()).requires_grad_()
    torch.testing.assert_close(projected, typed, rtol=1e-12, atol=1e-12)
    assert weights["0.weight"].shape[0] == batch.teacher_map.shape[1] // 2

    target, times = batch.teacher_map, batch.teacher_map.shape[2] // typed.shape[2]
    target = target.unflatten(3, (-1, times)).mean(4).unflatten(2, (-1, times)).mean(3)
    wanted = ((typed - target) ** 2).sum() / typed.numel()
    torch.testing.assert_close(terms["align"], wanted, rtol=1e-12, atol=0.0)
    (slope,) = torch.autograd.grad(terms["align"], projected)
    torch.testing.assert_close(slope, 2 * (typed - target) / typed.numel(), rtol=1e-12, atol=1e-14)


def test_the_student_predicts_with_the_mean_of_the_projected_map(world: World) -> None:
    one = released(world, "resnet8").eval()
    pixels = make_batch(world, one).pixels.double()
    projected, _, logits = one.student(pixels)
    weight, bias = world[1].head
    typed = projected.mean((2, 3)).float() @ weight.T + bias
    torch.testing.assert_close(logits, typed)
