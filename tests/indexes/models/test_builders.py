"""Builder names: long forms, names on older cards, arguments in a name, third-party code."""

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
def test_a_name_on_an_older_card_builds_the_same_net(family: str) -> None:
    assert maker(f"distill.students.{family}", trust=False) == maker(
        f"indexes.zoo.{family}", trust=False
    )
    assert maker(family.partition(":")[2], trust=False)[0] == f"indexes.zoo.{family}"


def test_an_older_teacher_gives_the_saved_logits(tmp_path: Path) -> None:
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
def test_a_name_can_contain_arguments(
    builder: str, name: str, arguments: dict[str, object]
) -> None:
    assert split_arguments(builder) == (name, arguments)


def test_unknown_and_third_party_builders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NetError, match=r"no net 'resnet8x5'.* Did you mean 'resnet8x4'"):
        maker("resnet8x5", trust=False)
    with pytest.raises(NetError, match=r"timm has no net 'resnet5O'; similar names: .*resnet50"):
        maker("timm:resnet5O", trust=False)
    with pytest.raises(NetError, match="--trust-builder"):
        maker("os:system", trust=False)
    with pytest.raises(NetError, match=r"there is no function 'os:absent'"):
        maker("os:absent", trust=True)


def test_every_student_has_a_family() -> None:
    assert students()["resnet8x4"].startswith("ResNets for small images")


@pytest.mark.parametrize(
    ("builder", "hint"),
    [
        ("resnet8x5", "resnet8x4"),
        ("timm:resnet51", "resnet50"),
        ("torchvision:resnet19", "resnet18"),
        ("open_clip:ViT-B-33", "ViT-B-32"),
        ("indexes.zoo.vgg:resnet18", "Available: "),
        ("indexes.zoo.vgg:os", "Available: "),
        ("timm:hf-hub:someone/net", "no net"),
        ("nonsense:", "Available: "),
        ("", "Available: "),
    ],
)
def test_an_unknown_name_lists_similar_names(builder: str, hint: str) -> None:
    with pytest.raises(NetError, match="no net") as caught:
        build_net(builder, num_classes=3)
    assert hint in str(caught.value)


def test_third_party_code_needs_trust(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from pathlib import Path\n"
        "from tests.support.nets import Plain\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n"
        "def net(num_classes, width=4):\n    return Plain(num_classes, width)\n"
    )
    for builder in (f"{file}:net", "tests.support.nets:Plain"):
        with pytest.raises(NetError, match="--trust-builder"):
            build_net(builder, num_classes=3)
        assert not (tmp_path / "ran").exists()
    net = build_net(f"{file}:net", num_classes=3, arguments={"width": 6}, trust=True)
    assert (tmp_path / "ran").exists()
    map_BDHW, features_BD, _ = net(torch.rand(2, 3, 8, 8))
    torch.testing.assert_close(map_BDHW.mean((2, 3)), features_BD)
    assert map_BDHW.shape == (2, 6, 6, 6)
    assert build_net("tests.support.nets:Plain", num_classes=3, trust=True).num_features == 4


@pytest.mark.parametrize("builder", ["tests.support.nets:absent", "no.such:f", "./no.py:f"])
def test_missing_trusted_code_is_named(builder: str) -> None:
    with pytest.raises(NetError, match="there is no function"):
        build_net(builder, num_classes=3, trust=True)


def test_students_lists_names_with_their_families() -> None:
    listed = students()
    assert listed["wrn_16_2"].startswith("Wide ResNets")
    assert "resnet8x4" in listed
    assert not any(name.startswith("_") for name in listed)
