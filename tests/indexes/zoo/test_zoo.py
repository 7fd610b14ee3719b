"""Every net of indexes/zoo has its published size, and the right shapes, gradients and names."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from indexes import plugins
from indexes.models.net import build_net, students

STUDENTS = sorted(students())
# Millions of parameters at 100 classes, from table 1 of the CRD supplement and the WRN and
# ResNet papers.
LITERATURE = {
    "resnet8": 0.08,
    "resnet14": 0.18,
    "resnet20": 0.28,
    "resnet32": 0.47,
    "resnet44": 0.67,
    "resnet56": 0.86,
    "resnet110": 1.74,
    "resnet8x4": 1.23,
    "resnet32x4": 7.43,
    "resnet18": 11.22,
    "resnet34": 21.33,
    "wrn_16_1": 0.18,
    "wrn_16_2": 0.70,
    "wrn_40_1": 0.57,
    "wrn_40_2": 2.26,
    "wrn_28_10": 36.5,
    "vgg8": 3.97,
    "vgg11": 9.28,
    "vgg13": 9.46,
    "vgg16": 14.8,
    "mobilenetv2": 0.81,
    "mobilenetv2_100": 2.35,
}
# The side of the last feature map for images of 32 pixels; it is 8 for all other nets.
SIDES = {"vgg": 4, "mobilenetv2": 2, "resnet18": 4, "resnet34": 4}


@pytest.mark.parametrize("name", STUDENTS)
def test_the_number_of_parameters_is_the_published_one(name: str) -> None:
    net = build_net(name, num_classes=100)
    millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    assert millions == pytest.approx(LITERATURE[name], rel=0.025, abs=0.005)


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("size", [32, 64])
def test_logits_are_the_head_applied_to_the_pooled_map(name: str, size: int) -> None:
    if name == "wrn_28_10" and size > 32:
        pytest.skip("the widest net at twice the size takes seconds; its siblings cover it")
    torch.manual_seed(0)
    net = build_net(name, num_classes=7).eval()
    with torch.no_grad():
        map_BDHW, features_BD, logits_BC = net(torch.rand(2, 3, size, size))
    weight_CD, bias_C = net.head
    side = next((side for family, side in SIDES.items() if name.startswith(family)), 8)
    factor = 1 if name.startswith("vgg") else size // 32
    assert map_BDHW.shape == (2, net.num_features, side * factor, side * factor)
    assert (map_BDHW >= 0).all()
    assert weight_CD.shape == (7, net.num_features)
    torch.testing.assert_close(map_BDHW.mean((2, 3)), features_BD)
    torch.testing.assert_close(features_BD @ weight_CD.T + bias_C, logits_BC)


@pytest.mark.parametrize("name", STUDENTS)
def test_the_module_gives_the_logits_of_the_net(name: str) -> None:
    torch.manual_seed(0)
    net = build_net(name, num_classes=5, mean=(0, 0, 0), std=(1, 1, 1)).eval()
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(net(pixels)[2], net.module(pixels))


@pytest.mark.parametrize("name", [s for s in STUDENTS if s != "wrn_28_10"])
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    net = build_net(name, num_classes=5).train()
    net(torch.rand(4, 3, 32, 32))[2].logsumexp(1).sum().backward()
    without = [key for key, parameter in net.module.named_parameters() if parameter.grad is None]
    assert without == []


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "vgg8", "mobilenetv2"])
def test_sizes_that_are_no_power_of_two_work(name: str) -> None:
    net = build_net(name, num_classes=3).eval()
    with torch.no_grad():
        assert net(torch.rand(1, 3, 100, 100))[2].shape == (1, 3)


def test_every_student_has_a_published_size() -> None:
    assert sorted(LITERATURE) == STUDENTS


def test_every_public_file_lists_its_builders() -> None:
    families = {students()[name] for name in STUDENTS}
    assert len(families) == len(plugins.names("indexes.zoo"))
    assert all(family.endswith((".", ")", ":")) for family in families)


@pytest.mark.parametrize("spelling", ["wrn-16-2", "WRN_16_2", "indexes.zoo.wide_resnet:wrn_16_2"])
def test_all_spellings_of_a_name_build_the_same_net(spelling: str) -> None:
    net = build_net(spelling, num_classes=3)
    assert net.builder == "indexes.zoo.wide_resnet:wrn_16_2"


def test_resnet18_has_the_parameter_names_of_torchvision() -> None:
    from torchvision import models

    ours = build_net("resnet18", num_classes=10).state_dict()
    theirs = models.resnet18(num_classes=10).state_dict()
    assert list(ours) == list(theirs)
    assert [k for k in ours if ours[k].shape != theirs[k].shape] == ["conv1.weight"]


def test_weights_start_as_he_normal_by_fan_out() -> None:
    torch.manual_seed(0)
    net = build_net("resnet8x4", num_classes=10)
    for key, module in net.module.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.15), key


def test_a_deep_copy_gives_the_same_logits_and_shares_no_weights() -> None:
    torch.manual_seed(0)
    net = build_net("resnet8", num_classes=4).eval()
    twin = copy.deepcopy(net)
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before = net(pixels)[2]
        for parameter in twin.parameters():
            parameter.zero_()
        torch.testing.assert_close(net(pixels)[2], before)
        assert not twin(pixels)[2].any()
