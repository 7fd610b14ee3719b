"""The cost of a net, compared with hand-computed counts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from distill.evaluation import cost
from indexes.models.net import build_net
from indexes.models.teacher import WEIGHTS, Teacher, load_teacher, save_teacher
from indexes.shards.reader import Shards
from tests.support import distillation

World = tuple[Shards, Teacher]


def resnet8_macs(side: int, num_classes: int) -> int:
    """Sum positions x kernel positions x channels in x channels out; add the classifier."""
    total = side * side * 9 * 3 * 16
    width_in = 16
    for stage, width in enumerate((16, 32, 64)):
        positions = (side // 2**stage) ** 2
        total += positions * 9 * width_in * width + positions * 9 * width * width
        if stage:
            total += positions * width_in * width
        width_in = width
    return total + 64 * num_classes


def test_cost_of_a_resnet8(world: World) -> None:
    _, net = world
    measured = cost.measure(net)
    assert measured.num_macs == resnet8_macs(32, 3)
    parameters = net.net.module.parameters()
    assert measured.num_parameters == sum(parameter.numel() for parameter in parameters)
    assert measured.num_bytes == len((net.directory / WEIGHTS).read_bytes())
    assert list(measured.images_per_second) == [1, 64]
    assert all(math.isfinite(rate) and rate > 0 for rate in measured.images_per_second.values())
    assert measured.device == cost.device_name("cpu") != ""
    assert measured.num_threads == torch.get_num_threads()
    assert measured.precision in ("float32", "bfloat16")
    assert not net.net.module.training


def test_macs_depend_on_the_input_size_of_the_card(tmp_path: Path) -> None:
    net = distillation.make_teacher(tmp_path / "t", size=16)
    assert cost.count_macs(net) == resnet8_macs(16, 3)


ATTENTIVE = """
from torch import nn

class Attentive(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, 4)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.fc = nn.Linear(32, num_classes)

    def forward(self, pixels):
        tokens = self.patches(pixels).flatten(2).transpose(1, 2)
        return self.fc(self.layer(tokens).mean(1))
"""


def test_fused_attention_is_counted_and_the_last_linear_is_counted_once(tmp_path: Path) -> None:
    """torch's counter misses the fused kernel of torch's encoder layers."""
    (tmp_path / "net.py").write_text(ATTENTIVE)
    net = build_net(f"{tmp_path / 'net.py'}:Attentive", num_classes=3, trust=True)
    save_teacher(tmp_path / "t", net, classes=distillation.CLASSES, input_size=16)
    before = torch.backends.mha.get_fastpath_enabled()
    num_macs = cost.count_macs(load_teacher(tmp_path / "t", trust_builder=True))
    tokens, width = 16, 32
    projections = 4 * tokens * width * width + 2 * tokens * width * 64
    products = 2 * tokens * tokens * width
    assert num_macs == tokens * 3 * 4 * 4 * width + projections + products + 3 * width
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_slow_nets_are_timed_over_fewer_runs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake clock makes a step take 10 s, 1.5 s or 40 ms."""
    _, net = world
    monkeypatch.setattr(cost, "RUN_SECONDS", 0.1)
    for step_seconds, num_steps in ((10.0, 1), (1.5, 2), (0.04, 5 * 2)):
        runs: list[int] = []

        def seconds(step: object, repeats: int, device: str, step_seconds: float = step_seconds,
                    runs: list[int] = runs) -> float:  # fmt: skip
            runs.append(repeats)
            return step_seconds * repeats

        monkeypatch.setattr(cost, "_seconds", seconds)
        assert cost.images_per_second(net, 8) == pytest.approx(8 / step_seconds)
        assert sum(runs) == 2 + num_steps, "two warm-up steps, then the timed steps"
