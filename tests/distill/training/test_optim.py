"""The optimizers follow the settings of the recipe, and so does the schedule."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from distill.training import optim

pytestmark = pytest.mark.usefixtures("one_thread")


def trained_net(num_steps: int = 3, **settings: Any) -> nn.Module:
    """Take steps of SGD with a gradient of 1 everywhere; all parameters begin at 2."""
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    for parameter in net.parameters():
        nn.init.constant_(parameter, 2.0)
    optimizers = optim.make_optimizers(net, **settings)
    optim.set_learning_rate(optimizers, 0.1)
    for _ in range(num_steps):
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizers["sgd"].step()
    return net


def stepped(decay: float, *, nesterov: bool) -> float:
    """Take the same steps for one number, written out."""
    value, velocity = 2.0, 0.0
    for step in range(3):
        gradient = 1.0 + decay * value
        velocity = gradient if step == 0 else optim.MOMENTUM * velocity + gradient
        value -= 0.1 * (gradient + optim.MOMENTUM * velocity if nesterov else velocity)
    return value


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("decay_norms", [True, False])
@pytest.mark.parametrize("decay", [5e-4, 1e-4, 0.0])
def test_weight_decay_and_momentum_are_those_of_the_recipe(
    nesterov: bool, decay_norms: bool, decay: float
) -> None:
    net = trained_net(weight_decay=decay, decay_norms=decay_norms, nesterov=nesterov)
    for parameter in net.parameters():
        decays = decay_norms or parameter.ndim > 1
        wanted = stepped(decay if decays else 0.0, nesterov=nesterov)
        torch.testing.assert_close(parameter, torch.full_like(parameter, wanted))


def test_the_default_decays_matrices_alone_with_nesterov_momentum() -> None:
    default = trained_net().state_dict()
    named = trained_net(weight_decay=5e-4, decay_norms=False, nesterov=True).state_dict()
    assert all(torch.equal(default[name], named[name]) for name in default)


def test_the_warm_up_takes_its_share() -> None:
    for share in (0.02, 0.5):
        assert optim.learning_rate(0.0, 1.0, warmup_frac=share) == 0.01
        assert optim.learning_rate(share / 2, 1.0, warmup_frac=share) == pytest.approx(0.505)
        assert optim.learning_rate(share, 1.0, warmup_frac=share) == 1.0
        assert optim.learning_rate((1 + share) / 2, 1.0, warmup_frac=share) == pytest.approx(0.5)
    for progress in (0.0, 0.3, 0.9):
        cosine = (1 + math.cos(math.pi * progress)) / 2
        assert optim.learning_rate(progress, 1.0, warmup_frac=0.0) == pytest.approx(cosine)
    drops = [optim.learning_rate(progress, 1.0, (0.5,), 0.0) for progress in (0.0, 0.49, 0.5)]
    assert drops == [1.0, 1.0, 0.1]
