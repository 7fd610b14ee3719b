"""Builder names: long forms, names on older cards, arguments behind a name, foreign code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from indexes.models.builders import NetError, maker, split_arguments, students
from indexes.models.net import build_net
from indexes.models.teacher import load_teacher, save_teacher

FAMILIES = ["cifar_resnet:resnet8", "wide_resnet:wrn_16_1", "vgg:vgg8", "mobilenetv2:mobilenetv2"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_name_on_an_older_card_means_the_same_net(family: str) -> None:
    assert maker(f"distill.students.{family}", trust=False) == maker(
        f"indexes.zoo.{family}", trust=False
    )
    assert maker(family.partition(":")[2], trust=False)[0] == f"indexes.zoo.{family}"


def test_an_older_teacher_is_opened_as_it_was_saved(tmp_path: Path) -> None:
    net = build_net("resnet8", num_classes=3).eval()
    net.builder = "distill.students.cifar_resnet:resnet8"
    card = save_teacher(tmp_path, net, classes="abc", input_size=32)
    assert json.loads((tmp_path / "card.json").read_text())["builder"].startswith("distill.")
    teacher = load_teacher(tmp_path)
    assert teacher.card.digest == card.digest
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(teacher(pixels)[2], net(pixels)[2])
    again = save_teacher(tmp_path / "again", teacher.net, classes="abc", input_size=32)
    assert again.builder == "indexes.zoo.cifar_resnet:resnet8"


def test_an_older_reused_net_is_rebuilt() -> None:
    shape = {"width_in": 64, "width": 8, "side": [4, 4], "factor": 2, "depthwise": False}
    net = build_net(
        "reused:distill.students.cifar_resnet:resnet8",
        num_classes=3,
        arguments={"arguments": {}, "signed": False, **shape},
    )
    assert net.num_features == 8


@pytest.mark.parametrize(
    ("builder", "name", "arguments"),
    [
        ("timm:vit_tiny", "timm:vit_tiny", {}),
        (
            "timm:vit:patch_size=4:act_layer=relu",
            "timm:vit",
            {"patch_size": 4, "act_layer": "relu"},
        ),
        ("./nets.py:make:sizes=(1, 2)", "./nets.py:make", {"sizes": (1, 2)}),
    ],
)
def test_arguments_stand_behind_a_name(
    builder: str, name: str, arguments: dict[str, object]
) -> None:
    assert split_arguments(builder) == (name, arguments)


def test_unknown_and_foreign_builders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NetError, match=r"no net 'resnet8x5'.* Did you mean 'resnet8x4'"):
        maker("resnet8x5", trust=False)
    with pytest.raises(NetError, match=r"timm has no net 'resnet5O'; near: .*resnet50"):
        maker("timm:resnet5O", trust=False)
    with pytest.raises(NetError, match="--trust-builder"):
        maker("os:system", trust=False)
    with pytest.raises(NetError, match=r"no function at 'os:absent'"):
        maker("os:absent", trust=True)


def test_every_student_has_a_family() -> None:
    assert students()["resnet8x4"].startswith("ResNets for small images")
