"""Mean weights are saved and measured, and then the trained weights are restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distill.training.ema import WeightAverage
from distill.training.learner import Learner
from indexes.models.net import build_net
from tests.support.training import World, losses, run, weights_of

pytestmark = pytest.mark.usefixtures("one_thread")


def test_mean_weights_are_saved_and_measured(world: World, tmp_path: Path) -> None:
    run(world, tmp_path / "mean", steps=6, recipe={"ema": 0.6})
    run(world, tmp_path / "last", steps=6)
    assert losses(tmp_path / "mean" / "resnet8") == losses(tmp_path / "last" / "resnet8")
    weights: list[dict[str, torch.Tensor]] = []
    step = Learner.step

    def watching(self: Learner, **kwargs: Any) -> None:
        if not weights:
            weights.append({k: v.clone() for k, v in self.method.module.state_dict().items()})
        step(self, **kwargs)
        weights.append({k: v.clone() for k, v in self.method.module.state_dict().items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "step", watching)
        run(world, tmp_path / "again", steps=6, recipe={"ema": 0.6})
    saved = weights_of(tmp_path / "again" / "resnet8")
    names = [name for name in saved if name.endswith(("weight", "bias"))]
    mean = weights[0]
    for step, now in enumerate(weights[1:], 1):
        decay = min(0.6, (1 + step) / (10 + step))
        mean = {name: decay * mean[name] + (1 - decay) * now[name] for name in names}
    for name in names:
        torch.testing.assert_close(saved[name], mean[name])
    last = weights_of(tmp_path / "last" / "resnet8")
    assert not any(torch.equal(saved[name], last[name]) for name in last if "running" in name)


def test_the_average_is_applied_and_removed_again() -> None:
    net = build_net("resnet8", num_classes=3).module
    mean = WeightAverage(net, 0.5)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    after = {k: v.clone() for k, v in net.state_dict().items()}
    with mean.applied():
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(torch.equal(v, after[k]) for k, v in net.state_dict().items())
