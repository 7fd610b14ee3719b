"""Students that end in their teacher's classifier: learnt, saved, opened, refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distill import reuse
from indexes import nets, teachers
from tests.distill import worlds

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
def teacher(tmp_path_factory: pytest.TempPathFactory) -> teachers.Teacher:
    return worlds.make_teacher(tmp_path_factory.mktemp("teacher"))


def as_teacher(directory: Path, builder: str) -> teachers.Teacher:
    torch.manual_seed(0)
    net = nets.build(builder, num_classes=3, input_size=32).eval()
    teachers.save(directory, net, classes=worlds.CLASSES, input_size=32)
    return teachers.open(directory)


@pytest.mark.parametrize("builder", STUDENTS)
def test_a_reused_student_is_saved_and_opened_whole(
    teacher: teachers.Teacher, tmp_path: Path, builder: str
) -> None:
    student = nets.build(builder, num_classes=3, input_size=32)
    num_own = sum(p.numel() for p in student.parameters())
    own_head = student.head[0].numel()
    net = reuse.reuse_classifier(student, teacher)
    projector = sum(p.numel() for p in net.module.projector.parameters())
    head = sum(p.numel() for p in net.module.classifier.parameters())
    # Its own classifier is gone: nothing is deployed that does not answer.
    assert sum(p.numel() for p in net.parameters()) <= num_own - own_head + projector + head
    net.eval()
    pixels = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found, features, logits = net(pixels)
    assert found.shape[1] == features.shape[1] == teacher.net.num_features
    torch.testing.assert_close(found.mean((2, 3)), features)
    weight, bias = teacher.head
    torch.testing.assert_close(logits, features @ weight.T + bias)
    teachers.save(tmp_path, net, classes=worlds.CLASSES, input_size=32)
    opened = teachers.open(tmp_path)
    assert opened.card.builder.startswith("reused:")
    assert torch.equal(opened(pixels)[2], logits)


def test_maps_meet_at_the_smaller_side(teacher: teachers.Teacher) -> None:
    taught = reuse.lesson(teacher)
    assert taught == reuse.Lesson((64, 8, 8), pooled=True, signed=False)
    small = reuse.reuse_classifier(nets.build("mobilenetv2", num_classes=3), teacher)
    assert small(torch.rand(2, 3, 32, 32))[0].shape == (2, 64, 2, 2)
    stage = nets.build("wrn_16_1", num_classes=3)
    assert reuse.reuse_classifier(stage, teacher)(torch.rand(2, 3, 32, 32))[0].shape[2:] == (8, 8)


@pytest.mark.parametrize(
    ("builder", "pooled", "signed"),
    [
        ("resnet18", True, False),
        ("timm:vit_tiny_patch16_224:depth=1", False, True),
        ("timm:convnext_atto:depths=[1,1,1,1]", False, True),
        ("timm:mobilenetv3_small_050", False, True),
    ],
)
def test_what_a_teacher_teaches_is_what_its_classifier_takes(
    tmp_path: Path, builder: str, pooled: bool, signed: bool
) -> None:
    teacher = as_teacher(tmp_path, builder)
    taught = reuse.lesson(teacher)
    assert (taught.pooled, taught.signed) == (pooled, signed)
    pixels = torch.rand(3, 3, 32, 32)
    map_BDHW, features, logits = teacher(pixels)
    wanted = taught.map_of(map_BDHW, features)
    assert wanted.shape[1:] == taught.shape
    weight, bias = teacher.head
    torch.testing.assert_close(wanted.mean((2, 3)) @ weight.T + bias, logits, rtol=1e-3, atol=1e-4)
    net = reuse.reuse_classifier(nets.build("resnet8", num_classes=3), teacher)
    found, _, _ = net(pixels)
    assert found.shape[1] == taught.shape[0]
    assert bool((found < 0).any()) == signed


def test_the_borrowed_classifier_is_a_frozen_copy(teacher: teachers.Teacher) -> None:
    net = reuse.reuse_classifier(nets.build("resnet8", num_classes=3), teacher)
    assert all(not p.requires_grad for p in net.module.classifier.parameters())
    with torch.no_grad():
        net.head[0].zero_()
    assert teacher.head[0].abs().sum() > 0


def test_a_net_of_another_size_is_refused_with_the_way_out() -> None:
    net = nets.build("torchvision:vit_b_32", num_classes=3)
    with pytest.raises(nets.NetError, match=r"does not take images of 32 pixels.*img_size=32"):
        reuse.look(net, 32)
    assert net.module.training


def test_looking_changes_nothing() -> None:
    net = nets.build("resnet8", num_classes=3)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = torch.get_rng_state()
    reuse.look(net, 32)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_arguments_stand_behind_a_name() -> None:
    split = nets.split_arguments
    assert split("timm:vit_tiny:img_size=32:name=a") == (
        "timm:vit_tiny",
        {"img_size": 32, "name": "a"},
    )
    assert split("resnet8") == ("resnet8", {})
    assert split("distill.students.vgg:vgg8") == ("distill.students.vgg:vgg8", {})
    assert split("./a=b/net.py:net") == ("./a=b/net.py:net", {})
