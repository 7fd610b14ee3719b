"""The map before the last reduction of size, in nets of several families."""

from __future__ import annotations

import pytest
import torch

from indexes.models.net import NetError, build_net
from indexes.models.stage_map import StageMap, stage_name


@pytest.mark.parametrize(
    ("builder", "name", "shape"),
    [
        ("resnet8", "layer2", (32, 16, 16)),
        ("resnet18", "layer3", (256, 8, 8)),
        ("wrn_16_2", "block2", (64, 16, 16)),
        ("torchvision:resnet18", "layer3", (256, 4, 4)),
        ("torchvision:mobilenet_v2", "features.13", (96, 4, 4)),
        ("timm:convnext_atto:depths=[1,1,1,1]", "stages.2", (160, 4, 4)),
    ],
)
def test_a_stage_is_the_outermost_module_before_the_last_reduction(
    builder: str, name: str, shape: tuple[int, ...]
) -> None:
    size = 32 if ":" not in builder else 64
    net = build_net(builder, num_classes=3, input_size=size)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    assert stage_name(net, size) == name
    assert net.module.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    stage = StageMap(net, name)
    net(torch.rand(2, 3, size, size))
    assert stage.take().shape == (2, *shape)


def test_a_net_without_a_larger_map_is_refused() -> None:
    net = build_net("timm:vit_tiny_patch16_224:depth=1:patch_size=8:img_size=32", num_classes=3)
    with pytest.raises(NetError, match=r"no map that is larger than its last one.*stage=0"):
        stage_name(net, 32)
