"""Nets of every library give (map, features, logits); unsuitable nets are refused."""

from __future__ import annotations

import warnings

import pytest
import torch

from indexes.models.net import NetError, build_net
from tests.support.clip import register_clip

# (builder, arguments, image side in pixels, shape of the map [D', h, w])
CASES = [
    ("timm:resnet10t", {}, 64, (512, 2, 2)),
    ("timm:mobilenetv3_small_050", {}, 64, (288, 2, 2)),
    ("timm:vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 2}, 32, (192, 4, 4)),
    ("timm:swin_tiny_patch4_window7_224", {"img_size": 56, "depths": [1, 1]}, 56, (192, 7, 7)),
    ("timm:convnext_atto", {"depths": [1, 1, 1, 1]}, 64, (320, 2, 2)),
    ("timm:vgg11_bn", {}, 64, (512, 2, 2)),
    ("timm:mixer_s32_224", {"img_size": 64}, 64, (512, 2, 2)),
    ("torchvision:resnet18", {}, 64, (512, 2, 2)),
    ("torchvision:mobilenet_v2", {}, 64, (1280, 2, 2)),
    ("torchvision:mobilenet_v3_small", {}, 64, (576, 2, 2)),
    ("torchvision:efficientnet_b0", {}, 64, (1280, 2, 2)),
    ("torchvision:vgg11_bn", {}, 64, (512, 2, 2)),
    ("torchvision:densenet121", {}, 64, (1024, 2, 2)),
    ("torchvision:shufflenet_v2_x0_5", {}, 64, (1024, 2, 2)),
    ("torchvision:regnet_y_400mf", {}, 64, (440, 2, 2)),
    ("torchvision:convnext_tiny", {}, 64, (768, 2, 2)),
    ("torchvision:swin_t", {}, 64, (768, 2, 2)),
    ("torchvision:vit_b_32", {"image_size": 64}, 64, (768, 2, 2)),
    ("torchvision:googlenet", {}, 64, (1024, 2, 2)),
]
# The features of these nets are the plain mean of the map.
POOLED = [
    "timm:resnet10t",
    "torchvision:resnet18",
    "torchvision:mobilenet_v2",
    "torchvision:densenet121",
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:swin_t",
]


@pytest.fixture(scope="module")
def tiny_clip() -> str:
    """An open_clip configuration small enough to build in a moment."""
    return f"open_clip:{register_clip()}"


@pytest.mark.parametrize(("builder", "arguments", "size", "shape"), CASES)
def test_map_features_and_logits_have_their_shapes(
    builder: str, arguments: dict[str, object], size: int, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    net = build_net(builder, num_classes=7, arguments=arguments).eval()
    pixels = torch.rand(2, 3, size, size)
    with torch.no_grad():
        map_BDHW, features_BD, logits_BC = net(pixels)
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (net.mean, net.std))
        direct = net.module((pixels - mean) / std)
    weight_CD, bias_C = net.head
    assert tuple(map_BDHW.shape[1:]) == shape
    assert features_BD.shape == (2, net.num_features)
    assert features_BD.dtype == logits_BC.dtype == torch.float32
    torch.testing.assert_close(features_BD @ weight_CD.T + bias_C, logits_BC)
    torch.testing.assert_close(direct, logits_BC, rtol=1e-4, atol=1e-4)
    if builder in POOLED:
        torch.testing.assert_close(map_BDHW.mean((2, 3)), features_BD, rtol=1e-4, atol=1e-5)


def test_every_pooled_case_exists() -> None:
    assert set(POOLED) <= {case[0] for case in CASES}


def test_an_open_clip_tower_has_a_frozen_zero_shot_head(tiny_clip: str) -> None:
    torch.manual_seed(0)
    net = build_net(tiny_clip, num_classes=3).eval()
    map_BDHW, features_BD, logits_BC = net(torch.rand(2, 3, 32, 32))
    weight_CD, bias_C = net.head
    assert map_BDHW.shape == (2, 16, 4, 4)
    torch.testing.assert_close(features_BD.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(features_BD @ weight_CD.T + bias_C, logits_BC)
    assert not weight_CD.requires_grad
    assert not any(key.startswith("text") for key in net.state_dict())


@pytest.mark.parametrize("builder", ["resnet8", "timm:resnet10t", "torchvision:mobilenet_v3_small"])
def test_autocast_keeps_features_and_logits_in_float32(builder: str) -> None:
    torch.manual_seed(0)
    net = build_net(builder, num_classes=5).to(memory_format=torch.channels_last).eval()
    pixels = torch.rand(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        exact = net(pixels)[2]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            map_BDHW, features_BD, logits_BC = net(pixels)
    weight_CD, bias_C = net.head
    assert map_BDHW.dtype == torch.bfloat16
    assert features_BD.dtype == logits_BC.dtype == torch.float32
    # The logits are computed from the returned features in float32 precision, not bfloat16.
    torch.testing.assert_close(features_BD @ weight_CD.T + bias_C, logits_BC, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(exact, logits_BC, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("builder", ["resnet8", "timm:resnet10t", "torchvision:resnet18"])
def test_gradients_flow_through_all_three(builder: str) -> None:
    net = build_net(builder, num_classes=5).train()
    for index in range(3):
        net.module.zero_grad()
        pixels = torch.rand(2, 3, 32, 32, requires_grad=True)
        net(pixels)[index].square().sum().backward()
        assert pixels.grad is not None
        assert pixels.grad.any()


def test_bfloat16_weights_take_float_pixels() -> None:
    net = build_net("resnet8", num_classes=5).to(torch.bfloat16).eval()
    with torch.no_grad():
        _, features_BD, logits_BC = net(torch.rand(2, 3, 32, 32))
    assert features_BD.dtype == logits_BC.dtype == torch.float32


def test_the_net_contains_its_normalization() -> None:
    torch.manual_seed(0)
    net = build_net("resnet8", num_classes=5, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)).eval()
    pixels = torch.rand(2, 3, 32, 32)
    by_hand = pixels.clone()
    for channel, (mean, std) in enumerate(zip(net.mean, net.std, strict=True)):
        by_hand[:, channel] = (pixels[:, channel] - mean) / std
    with torch.no_grad():
        torch.testing.assert_close(net(pixels)[2], net.module(by_hand))


def test_a_head_without_bias_has_a_zero_bias() -> None:
    net = build_net("torchvision:maxvit_t", num_classes=4, arguments={"input_size": [224, 224]})
    assert net.head[1].tolist() == [0.0] * 4


def test_the_state_survives_a_round_trip() -> None:
    source, target = (build_net("resnet8", num_classes=3).eval() for _ in range(2))
    target.load_state_dict(source.state_dict())
    pixels = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(source(pixels)[2], target(pixels)[2])


@pytest.mark.parametrize("key", ["pretrained", "weights", "checkpoint_path", "pretrained_cfg"])
def test_arguments_that_download_are_refused(key: str) -> None:
    with pytest.raises(NetError, match="give weights as a file"):
        build_net("timm:resnet18", num_classes=3, arguments={key: "x"})


@pytest.mark.parametrize("builder", ["timm:resnet18", "torchvision:resnet18", "resnet8"])
def test_unknown_arguments_name_the_builder(builder: str) -> None:
    with pytest.raises(NetError, match=r"resnet.*cannot be built"):
        build_net(builder, num_classes=3, arguments={"nonsense": 1})


@pytest.mark.parametrize("builder", ["torchvision:squeezenet1_1", "timm:dla34"])
def test_a_net_without_a_linear_classifier_is_refused(builder: str) -> None:
    with pytest.raises(NetError, match="does not end in a Linear"):
        build_net(builder, num_classes=3)


def test_building_a_net_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = build_net("torchvision:inception_v3", num_classes=3)
    assert net.num_classes == 3
