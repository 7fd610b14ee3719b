"""Students that reuse the classifier of their teacher: training, saving, loading, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distill import feature_maps
from distill.methods._simkd import reuse_classifier
from indexes.models.net import NetError, build_net, split_arguments
from indexes.models.teacher import Teacher, load_teacher, save_teacher
from tests.support import distillation

STUDENTS = [
    "resnet8",
    "mobilenetv2",
    "vgg8",
    "timm:convnext_atto:depths=[1,1,1,1]",
    "timm:vit_tiny_patch16_224:depth=1:patch_size=8",
    "timm:mobilenetv3_small_050",
    "torchvision:mobilenet_v3_small",
]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    return distillation.make_teacher(tmp_path_factory.mktemp("teacher"))


def as_teacher(directory: Path, builder: str) -> Teacher:
    torch.manual_seed(0)
    net = build_net(builder, num_classes=3, input_size=32).eval()
    save_teacher(directory, net, classes=distillation.CLASSES, input_size=32)
    return load_teacher(directory)


@pytest.mark.parametrize("builder", STUDENTS)
def test_a_student_with_a_reused_classifier_survives_a_round_trip(
    teacher: Teacher, tmp_path: Path, builder: str
) -> None:
    student = build_net(builder, num_classes=3, input_size=32)
    num_own = sum(p.numel() for p in student.parameters())
    own_head = student.head[0].numel()
    net = reuse_classifier(student, teacher)
    projector = sum(p.numel() for p in net.module.projector.parameters())
    head = sum(p.numel() for p in net.module.classifier.parameters())
    # The original classifier is removed, because the deployed net does not use it.
    assert sum(p.numel() for p in net.parameters()) <= num_own - own_head + projector + head
    net.eval()
    pixels = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found, features, logits = net(pixels)
    assert found.shape[1] == features.shape[1] == teacher.net.num_features
    torch.testing.assert_close(found.mean((2, 3)), features)
    weight, bias = teacher.head
    torch.testing.assert_close(logits, features @ weight.T + bias)
    save_teacher(tmp_path, net, classes=distillation.CLASSES, input_size=32)
    opened = load_teacher(tmp_path)
    assert opened.card.builder.startswith("reused:")
    assert torch.equal(opened(pixels)[2], logits)


def test_maps_are_compared_at_the_smaller_side(teacher: Teacher) -> None:
    target = feature_maps.teacher_map(teacher)
    assert target == feature_maps.TeacherMap((64, 8, 8), pooled=True, signed=False)
    small = reuse_classifier(build_net("mobilenetv2", num_classes=3), teacher)
    assert small(torch.rand(2, 3, 32, 32))[0].shape == (2, 64, 2, 2)
    stage = build_net("wrn_16_1", num_classes=3)
    assert reuse_classifier(stage, teacher)(torch.rand(2, 3, 32, 32))[0].shape[2:] == (8, 8)


@pytest.mark.parametrize(
    ("builder", "pooled", "signed"),
    [
        ("resnet18", True, False),
        ("timm:vit_tiny_patch16_224:depth=1", False, True),
        ("timm:convnext_atto:depths=[1,1,1,1]", False, True),
        ("timm:mobilenetv3_small_050", False, True),
    ],
)
def test_the_target_map_pools_to_the_input_of_the_classifier(
    tmp_path: Path, builder: str, pooled: bool, signed: bool
) -> None:
    teacher = as_teacher(tmp_path, builder)
    target = feature_maps.teacher_map(teacher)
    assert (target.pooled, target.signed) == (pooled, signed)
    pixels = torch.rand(3, 3, 32, 32)
    map_BDHW, features, logits = teacher(pixels)
    wanted = target.map_of(map_BDHW, features)
    assert wanted.shape[1:] == target.shape
    weight, bias = teacher.head
    torch.testing.assert_close(wanted.mean((2, 3)) @ weight.T + bias, logits, rtol=1e-3, atol=1e-4)
    net = reuse_classifier(build_net("resnet8", num_classes=3), teacher)
    found, _, _ = net(pixels)
    assert found.shape[1] == target.shape[0]
    assert bool((found < 0).any()) == signed


def test_the_reused_classifier_is_a_frozen_copy(teacher: Teacher) -> None:
    net = reuse_classifier(build_net("resnet8", num_classes=3), teacher)
    assert all(not p.requires_grad for p in net.module.classifier.parameters())
    with torch.no_grad():
        net.head[0].zero_()
    assert teacher.head[0].abs().sum() > 0


def test_a_net_of_another_size_is_refused_with_a_remedy() -> None:
    net = build_net("torchvision:vit_b_32", num_classes=3)
    with pytest.raises(NetError, match=r"does not take images of 32 pixels.*img_size=32"):
        feature_maps.probe_features(net, 32)
    assert net.module.training


def test_probing_features_changes_no_state() -> None:
    net = build_net("resnet8", num_classes=3)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = torch.get_rng_state()
    feature_maps.probe_features(net, 32)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_name_can_contain_arguments() -> None:
    split = split_arguments
    assert split("timm:vit_tiny:img_size=32:name=a") == (
        "timm:vit_tiny",
        {"img_size": 32, "name": "a"},
    )
    assert split("resnet8") == ("resnet8", {})
    assert split("indexes.zoo.vgg:vgg8") == ("indexes.zoo.vgg:vgg8", {})
    assert split("./a=b/net.py:net") == ("./a=b/net.py:net", {})
