"""A weights file becomes a teacher; a mismatch gives one line with a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from distill.teachers.config import ImportTeacherConfig
from distill.teachers.import_teacher import import_teacher
from indexes.models.net import IMAGENET_MEAN, IMAGENET_STD, Net, NetError, build_net
from indexes.models.teacher import Teacher, TeacherError, load_teacher

NAMES = ["cat", "dog", "ship"]
PIXELS = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return build_net("resnet8", num_classes=3, **PIXELS).eval()


def save(state: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_of_every_float_type_are_imported(
    net: Net, tmp_path: Path, dtype: torch.dtype
) -> None:
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in net.state_dict().items()}
    weights = save(state, tmp_path / "w.safetensors")
    teacher = imported(tmp_path / "out", "resnet8", weights, accuracy=0.8, **PIXELS)
    card = teacher.card
    assert card == load_teacher(tmp_path / "out").card
    assert (card.input_size, card.crop_frac, card.interpolation) == (32, 1.0, "bilinear")
    assert card.classes == tuple(NAMES)
    assert card.accuracy == 0.8
    assert {parameter.dtype for parameter in teacher.net.parameters()} == {torch.float32}
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = net(pixels)[2]
    torch.testing.assert_close(teacher(pixels)[2], expected, rtol=0.05, atol=0.05)


def test_missing_batch_counters_are_accepted(net: Net, tmp_path: Path) -> None:
    state = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    teacher = imported(tmp_path / "out", "resnet8", save(state, tmp_path / "w.pt"), **PIXELS)
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(teacher(pixels)[2], net(pixels)[2])


def imported(out: Path, builder: str, weights: Path, **options: Any) -> Teacher:
    given = {"classes": NAMES, **options}
    return import_teacher(ImportTeacherConfig(builder=builder, weights=weights, out=out, **given))


def refusal(tmp_path: Path, builder: str, weights: Path, **options: Any) -> str:
    with pytest.raises((TeacherError, NetError, FileNotFoundError)) as caught:
        imported(tmp_path / "out", builder, weights, **options)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def test_both_numbers_of_classes_are_stated(net: Net, tmp_path: Path) -> None:
    weights = save(net.state_dict(), tmp_path / "w.pt")
    (tmp_path / "five.txt").write_text("a\nb\nc\nd\ne\n")
    message = refusal(tmp_path, "resnet8", weights, classes=tmp_path / "five.txt", **PIXELS)
    assert "head of 3 classes" in message
    assert "5 class names" in message


@pytest.mark.parametrize(
    ("ours", "theirs", "hint"),
    [
        ("torchvision:resnet18", "resnet18", "--builder resnet18"),
        ("resnet18", "torchvision:resnet18", "--builder torchvision:resnet18"),
    ],
)
def test_a_wrong_stem_gets_a_hint(tmp_path: Path, ours: str, theirs: str, hint: str) -> None:
    state = build_net(theirs, num_classes=3).state_dict()
    weights = save(state, tmp_path / "w.pt")
    message = refusal(tmp_path, ours, weights, **PIXELS)
    assert "conv1.weight is [64, 3," in message
    assert hint in message


def test_weights_of_another_net_show_the_first_mismatches(net: Net, tmp_path: Path) -> None:
    weights = save(net.state_dict(), tmp_path / "w.pt")
    message = refusal(tmp_path, "vgg16", weights, **PIXELS)
    assert "block0.0.weight is missing" in message
    assert "more" in message
    assert len(message) < 700


def test_weights_that_are_not_finite_are_refused(net: Net, tmp_path: Path) -> None:
    state = net.state_dict()
    state["conv1.weight"][0] = float("nan")
    weights = save(state, tmp_path / "w.pt")
    assert "not finite" in refusal(tmp_path, "resnet8", weights, **PIXELS)


def test_missing_files_are_named(net: Net, tmp_path: Path) -> None:
    weights = save(net.state_dict(), tmp_path / "w.pt")
    assert "no weights file" in refusal(tmp_path, "resnet8", tmp_path / "no.pt")
    no_names = refusal(tmp_path, "resnet8", weights, classes=tmp_path / "no.txt")
    assert "no file of class names" in no_names


def test_built_in_nets_need_mean_and_std(net: Net, tmp_path: Path) -> None:
    weights = save(net.state_dict(), tmp_path / "w.pt")
    assert "give mean and std" in refusal(tmp_path, "resnet8", weights)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop_frac", 1.5),
        ("std", (1, 0, 1)),
        ("mean", (1,)),
        ("accuracy", "x"),
        ("interpolation", "cubic"),
    ],
)
def test_impossible_values_are_refused(net: Net, tmp_path: Path, field: str, value: Any) -> None:
    weights = save(net.state_dict(), tmp_path / "w.pt")
    message = refusal(tmp_path, "resnet8", weights, **{**PIXELS, field: value})
    assert field in message


def test_prompts_are_only_for_clip(net: Net, tmp_path: Path) -> None:
    weights = save(net.state_dict(), tmp_path / "w.pt")
    assert "open_clip" in refusal(tmp_path, "resnet8", weights, prompts=["a {}"])


def test_given_values_override_the_preprocessing_of_the_library(tmp_path: Path) -> None:
    builder = "torchvision:mobilenet_v3_small"
    weights = save(build_net(builder, num_classes=3).state_dict(), tmp_path / "w.pt")
    card = imported(tmp_path / "first", builder, weights).card
    assert (card.mean, card.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert (card.input_size, card.crop_frac) == (224, 0.875)
    view = {"input_size": 64, "crop_frac": 0.9, "interpolation": "bicubic"}
    card = imported(tmp_path / "second", builder, weights, **view, **PIXELS).card
    assert (card.input_size, card.crop_frac, card.interpolation) == (64, 0.9, "bicubic")
    assert (card.mean, card.std) == (PIXELS["mean"], PIXELS["std"])


def test_builder_arguments_are_kept(tmp_path: Path) -> None:
    builder = "timm:vit_tiny_patch16_224"
    arguments = {"img_size": 32, "patch_size": 8, "depth": 2}
    vit = build_net(builder, num_classes=3, arguments=arguments).eval()
    weights = save(vit.state_dict(), tmp_path / "w.pt")
    teacher = imported(tmp_path / "out", builder, weights, builder_args=arguments)
    assert teacher.card.input_size == 32
    assert teacher.net.arguments == arguments
    other = refusal(tmp_path / "x", builder, weights, builder_args=arguments | {"depth": 1})
    assert "blocks.1" in other


def test_an_unsupported_input_size_is_refused(tmp_path: Path) -> None:
    builder = "timm:vit_tiny_patch16_224"
    arguments = {"img_size": 32, "patch_size": 8, "depth": 1}
    vit = build_net(builder, num_classes=3, arguments=arguments)
    weights = save(vit.state_dict(), tmp_path / "w.pt")
    message = refusal(tmp_path, builder, weights, builder_args=arguments, input_size=48)
    assert "does not run at 48 pixels" in message


def test_logits_that_are_not_linear_in_the_features_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n"
        "def net(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "                         nn.Linear(4, num_classes), nn.Softmax(1))\n"
    )
    builder = f"{file}:net"
    weights = save(build_net(builder, num_classes=3, trust=True).state_dict(), tmp_path / "w.pt")
    assert "--trust-builder" in refusal(tmp_path, builder, weights)
    more = {"trust_builder": True, "input_size": 16, **PIXELS}
    assert "not a Linear" in refusal(tmp_path, builder, weights, **more)
