"""Feature maps and features: grids of tokens, the channels-last layout and hooks."""

from __future__ import annotations

import copy

import pytest
import torch

from indexes.models.features import HookedFeatures, as_map, grid
from indexes.models.net import build_net


@pytest.mark.parametrize("builder", ["torchvision:resnet18", "torchvision:mobilenet_v2"])
def test_a_hooked_net_can_be_copied_and_stores_no_tensors(builder: str) -> None:
    torch.manual_seed(0)
    net = build_net(builder, num_classes=3).eval()
    twin = copy.deepcopy(net)
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        assert not net(pixels)[1].any()
        assert twin(pixels)[1].any()
        net.module(pixels)
    assert isinstance(net._extract, HookedFeatures)
    assert net._extract.captured is None


def test_a_grid_needs_a_square_number_of_tokens() -> None:
    tokens = torch.arange(2 * 10 * 3.0).reshape(2, 10, 3)
    square = grid(tokens, 1)
    assert square is not None
    for row in range(3):
        for column in range(3):
            torch.testing.assert_close(square[:, :, row, column], tokens[:, 1 + 3 * row + column])
    assert grid(tokens, 0) is None
    assert grid(tokens, 10) is None


def test_channels_last_maps_are_recognized_by_their_width() -> None:
    features = torch.zeros(2, 5)
    raw = torch.zeros(2, 7, 7, 5)
    assert as_map(raw, features, width=5, num_prefix=0).shape == (2, 5, 7, 7)
    assert as_map(raw, features, width=None, num_prefix=0).shape == (2, 7, 7, 5)
    assert as_map(None, features, width=None, num_prefix=0).shape == (2, 5, 1, 1)
