"""The BatchNorm fingerprint, compared with a second implementation of the formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from indexes.models.net import build_net
from indexes.models.teacher import Teacher, load_teacher, save_teacher
from pipeline.embedding.bn_stats import MAX_CHANNELS, BatchNormStats
from tests.support import corpora


def trained(directory: Path) -> Teacher:
    """Make a teacher whose running statistics come from noise images."""
    torch.manual_seed(0)
    net = build_net("resnet8", num_classes=3)
    net.train()
    for _ in range(60):
        net(torch.rand(64, 3, 32, 32))
    save_teacher(directory, net.eval(), classes=corpora.CLASSES, input_size=32)
    return load_teacher(directory)


def test_moments_of_the_last_layer_match_the_formula(tmp_path: Path) -> None:
    teacher = trained(tmp_path / "t")
    layers = [m for m in teacher.net.module.modules() if isinstance(m, nn.BatchNorm2d)]
    inputs: list[tuple[nn.BatchNorm2d, torch.Tensor]] = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda layer, args: inputs.append((layer, args[0])))
    pixels = torch.rand(5, 3, 32, 32)
    with BatchNormStats(teacher) as bn_stats:
        teacher(pixels)
        stats = bn_stats.pop()
    last, x = inputs[-1][0], inputs[-1][1].double().numpy()
    assert last.running_mean is not None
    assert last.running_var is not None
    mean, variance = last.running_mean.double().numpy(), last.running_var.double().numpy()
    z = (x - mean[:, None, None]) / np.sqrt(variance)[:, None, None]
    expected = np.concatenate([z.mean((2, 3)), (z**2).mean((2, 3)) - 1], 1)
    np.testing.assert_allclose(stats["moments"].numpy(), expected, rtol=2e-3, atol=2e-3)
    distance = (z.mean((2, 3)) ** 2 + (z.std((2, 3)) - 1) ** 2).mean(1)
    assert stats["bn"].shape == (5, len(layers))
    np.testing.assert_allclose(stats["bn"][:, -1].numpy(), distance, rtol=2e-3, atol=2e-3)


def test_training_data_is_nearer_than_other_data(tmp_path: Path) -> None:
    teacher = trained(tmp_path / "t")
    with BatchNormStats(teacher) as bn_stats:
        teacher(torch.rand(64, 3, 32, 32))
        similar = bn_stats.pop()
        teacher(torch.rand(64, 3, 32, 32) * 0.2)
        darker = bn_stats.pop()
    assert similar["bn"].float().mean() < darker["bn"].float().mean()
    assert similar["moments"].float().mean(0).abs().mean() < 0.3
    assert similar["moments"].float().mean(0).norm() < darker["moments"].float().mean(0).norm() / 2


def test_hooks_are_removed_and_a_net_without_norms_has_no_fingerprint(
    tmp_path: Path,
) -> None:
    teacher = trained(tmp_path / "t")
    with BatchNormStats(teacher) as bn_stats:
        pass
    teacher(torch.rand(2, 3, 32, 32))
    assert bn_stats.pop() == {}
    plain = build_net("timm:vit_tiny_patch16_224", num_classes=3, arguments={"img_size": 32})
    save_teacher(tmp_path / "v", plain, classes=corpora.CLASSES, input_size=32)
    vit = load_teacher(tmp_path / "v")
    with BatchNormStats(vit) as bn_stats:
        vit(torch.rand(2, 3, 32, 32))
        assert bn_stats.pop() == {}


def test_wide_layers_keep_evenly_spaced_channels(tmp_path: Path) -> None:
    net = build_net("timm:resnet26d", num_classes=3)
    save_teacher(tmp_path / "w", net, classes=corpora.CLASSES, input_size=32)
    teacher = load_teacher(tmp_path / "w")
    with BatchNormStats(teacher) as bn_stats:
        teacher(torch.rand(2, 3, 32, 32))
        stats = bn_stats.pop()
    assert stats["moments"].shape == (2, 2 * MAX_CHANNELS)
