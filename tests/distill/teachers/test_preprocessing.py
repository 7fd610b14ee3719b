"""The preprocessing of a net comes from the weights of its library; ambiguity gives a warning."""

from __future__ import annotations

import logging

import pytest

from distill.teachers.preprocessing import default_view, torchvision_view
from indexes.models.net import IMAGENET_MEAN, IMAGENET_STD, build_net


@pytest.mark.parametrize(
    ("name", "view", "num_views"),
    [
        ("resnet50", (224, 224 / 256, "bilinear"), 2),
        ("regnet_y_400mf", (224, 224 / 256, "bilinear"), 2),
        ("inception_v3", (299, 299 / 342, "bilinear"), 1),
        ("efficientnet_b3", (300, 300 / 320, "bicubic"), 1),
        ("convnext_tiny", (224, 224 / 236, "bilinear"), 1),
        ("vit_b_16", (224, 224 / 256, "bilinear"), 2),
    ],
)
def test_the_first_weights_of_torchvision_give_the_preprocessing(
    caplog: pytest.LogCaptureFixture, name: str, view: tuple[int, float, str], num_views: int
) -> None:
    size = 224 if name.startswith("vit") else None
    with caplog.at_level(logging.WARNING, logger="distill"):
        found = torchvision_view(name, size, needs_crop=True)
        assert (found["input_size"], found["crop_frac"], found["interpolation"]) == view
        assert caplog.text.count("--crop-frac") == (num_views if num_views > 1 else 0)
        caplog.clear()
        torchvision_view(name, size, needs_crop=False)
        assert not caplog.text


def test_the_configuration_of_timm_gives_the_preprocessing() -> None:
    net = build_net("timm:resnet10t", num_classes=3)
    config = net.module.pretrained_cfg
    assert default_view(net, needs_crop=True) == {
        "mean": config["mean"],
        "std": config["std"],
        "input_size": config["input_size"][1],
        "crop_frac": config["crop_pct"],
        "interpolation": config["interpolation"],
    }


def test_torchvision_has_the_mean_and_std_of_imagenet() -> None:
    view = default_view(build_net("torchvision:mobilenet_v3_small", num_classes=3), needs_crop=True)
    assert (view["mean"], view["std"]) == (IMAGENET_MEAN, IMAGENET_STD)
    assert (view["input_size"], view["crop_frac"]) == (224, 0.875)


def test_built_in_nets_define_no_mean_and_std() -> None:
    view = default_view(build_net("resnet8", num_classes=3), needs_crop=True)
    assert view == {"input_size": 32, "crop_frac": 1.0, "interpolation": "bilinear"}
